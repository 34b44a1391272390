//! Why TLS to another server did not come about, as far as a setting can put it right.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// See the module.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    /// The server's certificate was signed by nobody whom this process trusts.
    Authority,
    /// The server's certificate is for another host.
    Host,
    /// The server does not want the certificate of this process, or wants one and got none.
    Ours,
    /// The server does not speak TLS.
    None,
}

impl TlsFailure {
    /// What is behind an error, if it is one of these.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(failure) = rustls_error(error).and_then(Self::of_rustls) {
                return Some(failure);
            }
            next = error.source();
        }
        None
    }

    fn of_rustls(error: &rustls::Error) -> Option<Self> {
        use AlertDescription as Alert;
        match error {
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => Some(Self::Authority),
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Some(Self::Host),
            rustls::Error::AlertReceived(
                Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateUnknown
                | Alert::UnsupportedCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::AccessDenied,
            ) => Some(Self::Ours),
            rustls::Error::InvalidMessage(_) => Some(Self::None),
            _ => None,
        }
    }
}

/// An I/O error names the source of what is in it, and not that itself.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .map(|inner| inner as &(dyn Error + 'static));
    inner.unwrap_or(error).downcast_ref()
}
