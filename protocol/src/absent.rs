//! Fields that JSON leaves out when they hold nothing, while postcard, which writes no names, must always
//! write them. serde's `skip_serializing_if` cannot see the format, so the JSON encoder says it through a
//! thread-local flag. Outside the JSON encoder nothing is ever left out.

use std::cell::Cell;

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
