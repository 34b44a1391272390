//! What a workload does, and what it says afterwards.

use std::fmt;
use std::time::Duration;

use tidings_protocol::UserId;

use crate::token::Identity;

/// Where the people connect.
#[derive(Clone, Debug)]
pub struct Targets {
    /// URLs of gateways, or of the proxies in front of them. When one does not answer, another is tried.
    pub urls: Vec<String>,
    /// Base URLs of the services for attachments, or of the proxies in front of them. None: nobody sends files.
    pub media: Vec<String>,
    /// The secret that tokens are signed with.
    pub secret: String,
}

/// What a workload does.
#[derive(Clone, Debug)]
pub struct WorkloadOptions {
    /// Users who are there from the beginning.
    pub users: usize,
    /// Users who are written to before they first connect, one after the other in the course of `length`.
    pub late_users: usize,
    /// Group chats of 3 to 12 people; direct chats come on top, about one for two users.
    pub groups: usize,
    /// Group chats of 100 people, most of whom have no device of their own (they are users who never connect).
    pub large_groups: usize,
    /// Messages a second, of all people together.
    pub sends_per_second: f64,
    /// Files sent a minute, of all people together, where there is somewhere to put them.
    pub files_per_minute: f64,
    /// Membership changes a minute, of all chats together.
    pub changes_per_minute: f64,
    /// How often a minute something happens to a device: it goes, is replaced, removed, connects a second time, ….
    pub device_events_per_minute: f64,
    /// How long the run is meant to be: long absences are a part of it.
    pub length: Duration,
    /// For how long [`super::Workload::finish`] waits for rest.
    pub rest_timeout: Duration,
}

impl Default for WorkloadOptions {
    /// What a system on two cores carries while half of its processes are being killed.
    fn default() -> Self {
        Self {
            users: 24,
            late_users: 4,
            groups: 10,
            large_groups: 0,
            sends_per_second: 20.0,
            files_per_minute: 60.0,
            changes_per_minute: 30.0,
            device_events_per_minute: 30.0,
            length: Duration::from_mins(1),
            rest_timeout: Duration::from_mins(2),
        }
    }
}

/// What a workload says about itself. The promises are the judge's.
#[derive(Clone, Debug, Default)]
pub struct WorkloadReport {
    /// Messages that were accepted.
    pub accepted: u64,
    /// Replies that said that the message had been accepted before.
    pub duplicates: u64,
    /// Files that were uploaded.
    pub uploads: u64,
    /// What nobody should have met, for people.
    pub surprises: Vec<String>,
    /// Deliveries of any kind.
    pub deliveries: u64,
    /// Second and later attempts of a send or change.
    pub retries: u64,
    /// Requests whose outcome is not known to the end.
    pub unknown: u64,
    /// Connections that were welcomed.
    pub connections: u64,
    /// Connections that were closed with 4409 though the device had made no newer one that it held: an attempt that it
    /// had given up was answered by a gateway that came back to life, and took the device's place.
    pub replaced_by_itself: u64,
    /// Devices that did not come to rest.
    pub not_at_rest: u64,
    /// How long it took to come to rest.
    pub rest: Duration,
    /// The users whose devices took part.
    pub users: Vec<UserId>,
    /// The clients that are active at the end.
    pub clients: Vec<Identity>,
}

impl fmt::Display for WorkloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "workload: {} accepted, {} of them told again, {} files uploaded, {} deliveries, {} retries, {} unanswered, {} connections ({} replaced by themselves); \
             at rest after {:.1} s ({} devices not)",
            self.accepted,
            self.duplicates,
            self.uploads,
            self.deliveries,
            self.retries,
            self.unknown,
            self.connections,
            self.replaced_by_itself,
            self.rest.as_secs_f64(),
            self.not_at_rest,
        )
    }
}
