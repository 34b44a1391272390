//! How many events wait, and for what: `tidings_fanout_waiting`.

/// What one event waits for. Counted until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Waits(Option<&'static str>);

impl Waits {
    /// It waits for this now; says whether that is new.
    pub(crate) fn wait_for(&mut self, what: &'static str) -> bool {
        let before = self.0.replace(what);
        if before == Some(what) {
            return false;
        }
        end(before);
        metrics::gauge!("tidings_fanout_waiting", "for" => what).increment(1);
        true
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        end(self.0);
    }
}

fn end(what: Option<&'static str>) {
    if let Some(what) = what {
        metrics::gauge!("tidings_fanout_waiting", "for" => what).decrement(1);
    }
}
