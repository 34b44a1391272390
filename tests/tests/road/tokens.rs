//! The life of a token on a connection.

use tidings_protocol::{CloseCode, Codec, ErrorCode, RenewToken, ServerFrame};
use tidings_tests::{Device, Identity, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_in_time_or_the_connection_ends() {
    let system = System::shared().await;
    let secret = system.secret();
    let identity = Identity::fresh("alice");
    let mut alice =
        Device::with_token(system, &identity, &identity.token_for(&secret, 62), Codec::Json).await;
    let expiring = |heard: &ServerFrame| match heard {
        ServerFrame::TokenExpiring(expiring) => Some(expiring.expires_at),
        _ => None,
    };
    let expires_at = alice.expect("tokenExpiring", expiring).await;
    assert_eq!(expires_at.0 % 1000, 0, "exp counts seconds");

    for (token, code) in [
        (Identity::fresh("mallory").token(&secret), ErrorCode::Unauthorized),
        (
            Identity::new(&identity.user_id).token(&secret),
            ErrorCode::Unauthorized,
        ),
        (identity.token_for(&secret, -60), ErrorCode::TokenExpired),
    ] {
        let id = alice.id();
        let error = alice
            .request(RenewToken { id, token })
            .await
            .expect_err("refused");
        assert_eq!((error.code, error.field.as_deref()), (code, Some("token")));
    }
    // One that lives for seconds only: it is announced at once, and then it is over.
    let id = alice.id();
    let reply = alice
        .request(RenewToken {
            id,
            token: identity.token_for(&secret, 3),
        })
        .await
        .expect("renewed");
    let expires_at = reply.token_expires_at.expect("when it expires");
    assert_eq!(alice.expect("tokenExpiring", expiring).await, expires_at);
    let (closed, heard) = alice.until_closed().await;
    assert_eq!(closed.close_code(), Some(CloseCode::Unauthorized));
    assert!(
        matches!(heard.last(), Some(ServerFrame::Closing(closing))
            if closing.code == ErrorCode::TokenExpired && closing.reconnect),
        "{heard:?}"
    );
}
