//! What happened in a run, as those who took part saw it: every frame of every recording client, and what was done to
//! the system meanwhile. From this alone the [judge](crate::judge) decides.
//!
//! In memory and, where a folder is given, as JSON lines, so that a run can be judged again.

mod happening;
mod json_lines;
mod moment;
mod record;
mod recorder;
mod run;

pub use happening::{Event, Happening};
pub use moment::Moment;
pub use record::{Fetch, Record, RecordedConnection, What};
pub use recorder::{ConnectionRecorder, Recorder};
pub use run::{ReadRunError, Run, StoredEntry};
