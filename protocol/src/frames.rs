//! One list of frames, from which the enum and both codecs are made.

/// Makes an enum of frames: `number Variant(Payload) = "type"`. JSON carries the type's name, postcard the
/// number, so neither depends on the order of the list.
macro_rules! frames {
    ($(#[$meta:meta])* pub enum $name:ident { $($number:literal $variant:ident($payload:ty) = $kind:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
        #[serde(tag = "type")]
        pub enum $name {
            $(
                #[doc = concat!("`", $kind, "`")]
                #[serde(rename = $kind)]
                $variant($payload),
            )*
        }

        impl $name {
            /// Every `type`, in the order of their numbers.
            pub const KINDS: &[&'static str] = &[$($kind,)*];

            /// The frame's `type`.
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $kind,)*
                }
            }
        }

        impl crate::codec::Frame for $name {
            fn from_json(kind: &str, text: &str) -> Option<Result<Self, crate::codec::FieldError>> {
                match kind {
                    $($kind => Some(crate::codec::payload_from_json(text).map(Self::$variant)),)*
                    _ => None,
                }
            }

            fn from_postcard(number: u32, bytes: &[u8]) -> Option<Result<Self, postcard::Error>> {
                match number {
                    $($number => Some(postcard::from_bytes(bytes).map(Self::$variant)),)*
                    _ => None,
                }
            }

            fn to_postcard(&self, out: Vec<u8>) -> Result<Vec<u8>, postcard::Error> {
                match self {
                    $(Self::$variant(payload) => {
                        let out = postcard::to_extend(&($number as u32), out)?;
                        postcard::to_extend(payload, out)
                    })*
                }
            }
        }

        $(
            impl From<$payload> for $name {
                fn from(payload: $payload) -> Self {
                    Self::$variant(payload)
                }
            }
        )*
    };
}

pub(crate) use frames;
