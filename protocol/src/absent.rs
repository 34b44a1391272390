//! Fields that JSON leaves out when they hold nothing, while postcard, which writes no names, must always
//! write them. serde's `skip_serializing_if` cannot see the format, so the JSON encoder says it through a
//! thread-local flag. Outside the JSON encoder nothing is ever left out.

use std::cell::Cell;

use serde::{Deserialize, Deserializer};

thread_local! {
    static LEAVES_OUT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `encode` with empty optional fields left out.
pub(crate) fn leaving_out<T>(encode: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            LEAVES_OUT.set(self.0);
        }
    }
    let _restore = Restore(LEAVES_OUT.replace(true));
    encode()
}

/// `skip_serializing_if` of an optional field.
#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
pub(crate) fn none<T>(value: &Option<T>) -> bool {
    value.is_none() && LEAVES_OUT.get()
}

/// `skip_serializing_if` of a list that may be empty.
pub(crate) fn empty<T>(value: &[T]) -> bool {
    value.is_empty() && LEAVES_OUT.get()
}

/// `deserialize_with` of a field that may be absent and may be null, which mean different things. serde
/// alone reads a null in JSON as absent.
#[expect(clippy::option_option, reason = "absent, null and a value are three things")]
pub(crate) fn null_is_present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    if deserializer.is_human_readable() {
        Option::deserialize(deserializer).map(Some)
    } else {
        Option::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_put_back_also_after_a_panic_and_when_nested() {
        assert!(!none::<u8>(&None));
        leaving_out(|| {
            assert!(none::<u8>(&None) && empty::<u8>(&[]));
            leaving_out(|| assert!(none::<u8>(&None)));
            assert!(none::<u8>(&None), "the inner one must not end the outer one");
        });
        assert!(!none::<u8>(&None) && !empty::<u8>(&[]));
        let panicked = std::panic::catch_unwind(|| leaving_out(|| panic!("in the encoder")));
        assert!(panicked.is_err());
        assert!(!none::<u8>(&None), "the flag leaked");
    }

    #[test]
    fn what_holds_something_is_never_left_out() {
        leaving_out(|| assert!(!none(&Some(1)) && !empty(&[1])));
    }
}
