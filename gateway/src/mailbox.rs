//! What the rest of the gateway tells a connection. Bounded, and never waited for: what does not fit is found by
//! a reading of the inbox.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tidings_nats::CloseReason;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::delivery::Arrived;

/// Notices that wait for a connection; as many as may be unconfirmed, since no more could be sent.
const NOTICES_MAX: usize = tidings_protocol::WINDOW_MAX;

/// A notice that names a connection.
#[derive(Debug)]
pub(crate) struct Told {
    /// The entry, decoded once for all its recipients here.
    pub(crate) entry: Arc<Arrived>,
    /// Its stream sequence in the inbox.
    pub(crate) sequence: u64,
    /// Its size, for the window.
    pub(crate) bytes: usize,
    /// The inbox must be read once after this stamp was given before this is delivered (`workers.rs`).
    pub(crate) stamp: u64,
    /// The last stamp that was given: a reading that begins now is after all of them.
    pub(crate) stamp_now: u64,
    /// Only the inbox tells whether it is still there.
    pub(crate) stored_before: bool,
    /// The boot id of who tells.
    pub(crate) worker: Uuid,
}

/// A direct notice that names a connection.
#[derive(Debug)]
pub(crate) struct ToldDirectly {
    /// The entry, decoded once for all its recipients here.
    pub(crate) entry: Arc<Arrived>,
    /// Its size, for the window.
    pub(crate) bytes: usize,
    /// As [`Told::stamp`].
    pub(crate) stamp: u64,
    /// The boot id of who tells.
    pub(crate) worker: Uuid,
    /// Under which grant.
    pub(crate) grant: u32,
}

/// What a connection is told.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A notice may have been lost.
    Doubt,
    /// An entry was stored in the inbox.
    Notice {
        /// The entry, decoded once for all its recipients here.
        entry: Arc<Arrived>,
        /// Its stream sequence in the inbox.
        sequence: u64,
        /// Its size, for the window.
        bytes: usize,
        /// The boot id of who told.
        worker: Uuid,
    },
    /// An event that is not stored.
    Direct(ToldDirectly),
    /// What workers tell directly under the grants that they have may be in the wrong place.
    Withdraw,
    /// Every worker knows of the session.
    FencePassed,
    /// The last sequence stored in the inbox.
    Checked(u64),
    /// The connection is to end.
    Close(Ending),
}

/// A direct notice was not taken.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Untaken;

/// Why a connection is to end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Somebody asked for it.
    Asked(CloseReason),
    /// The gateway stops.
    Restart,
}

/// A connection's mailbox. Costs a lock and a few words while it is empty.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    mail: VecDeque<Mail>,
    /// Notices that wait, direct ones too.
    notices: usize,
    doubt: bool,
    withdraw: bool,
    /// Direct delivery was granted, since it was last withdrawn here.
    granted: bool,
    close: Option<Ending>,
    /// A reading begins, or has begun, after this stamp was given.
    stamp: u64,
    /// The doubt about all sessions after which nothing was heard of this one; 0 where there is none.
    suspected: u64,
    /// Not every worker knows where the client is.
    unfenced: bool,
}

impl Mailbox {
    /// A notice. Doubt instead, if there is no room, or if only the inbox can tell what comes before it.
    pub(crate) fn notice(&self, told: Told) {
        {
            let mut state = self.state.lock();
            if state.doubt {
                // A reading follows anyway.
                state.stamp = state.stamp.max(told.stamp_now);
                return;
            }
            match state.objection(&told) {
                None => {
                    state.notices += 1;
                    state.mail.push_back(Mail::Notice {
                        entry: told.entry,
                        sequence: told.sequence,
                        bytes: told.bytes,
                        worker: told.worker,
                    });
                }
                Some(cause) => {
                    metrics::counter!("tidings_session_doubts_total", "cause" => cause).increment(1);
                    state.stamp = state.stamp.max(told.stamp_now);
                    state.doubt();
                }
            }
        }
        self.filled.notify_one();
    }

    /// A direct notice. An error if it cannot be taken: then it must be refused, and no more is taken under its grant.
    pub(crate) fn direct(&self, told: ToldDirectly) -> Result<(), Untaken> {
        let mut state = self.state.lock();
        let cause = if state.doubt || state.close.is_some() {
            "in doubt"
        } else if let Some(cause) = state.objection_to(told.stamp) {
            cause
        } else {
            state.notices += 1;
            state.mail.push_back(Mail::Direct(told));
            drop(state);
            self.filled.notify_one();
            return Ok(());
        };
        metrics::counter!("tidings_direct_refusals_total", "cause" => cause).increment(1);
        state.withdraw();
        drop(state);
        self.filled.notify_one();
        Err(Untaken)
    }

    /// Some worker may tell directly from now on.
    pub(crate) fn granted(&self) {
        self.state.lock().granted = true;
    }

    /// A notice may have been lost, of this session or of any other: `doubt` counts such moments. Costs nothing where
    /// nothing is under way: until a check clears the session, the next notice is a reason to read.
    pub(crate) fn suspect(&self, doubt: u64) {
        let mut state = self.state.lock();
        if state.notices > 0 {
            state.doubt();
            drop(state);
            self.filled.notify_one();
        } else if !state.doubt {
            state.suspected = doubt;
        }
    }

    /// Whether the session waits for a check since this doubt or an earlier one.
    pub(crate) fn is_suspected(&self, doubt: u64) -> bool {
        self.state.lock().is_suspected(doubt)
    }

    /// A check that began after this doubt has found the last sequence that is stored in the inbox, if any.
    pub(crate) fn clear(&self, doubt: u64, last: Option<u64>) {
        let mut state = self.state.lock();
        if !state.is_suspected(doubt) {
            return;
        }
        state.suspected = 0;
        // What was lost may have been told directly, so that no check of the inbox finds it.
        let wakes = state.granted || last.is_some();
        state.withdraw();
        state.mail.extend(last.map(Mail::Checked));
        drop(state);
        if wakes {
            self.filled.notify_one();
        }
    }

    /// The check has failed: the session must find out for itself.
    pub(crate) fn doubt_if_suspected(&self, doubt: u64) {
        let mut state = self.state.lock();
        if state.is_suspected(doubt) {
            state.doubt();
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Workers forget where the client is, or have forgotten: until a fence has passed again, a notice is only a
    /// reason to read.
    pub(crate) fn unfence(&self) {
        let mut state = self.state.lock();
        state.unfenced = true;
        state.doubt();
        drop(state);
        self.filled.notify_one();
    }

    /// Whether there is no fence, so that entries may be stored without a notice.
    pub(crate) fn is_unfenced(&self) -> bool {
        self.state.lock().unfenced
    }

    /// Whether the connection is about to end.
    pub(crate) fn is_closing(&self) -> bool {
        self.state.lock().close.is_some()
    }

    /// Every worker knows of the session. The reading that follows is after this stamp.
    pub(crate) fn fence_passed(&self, stamp: u64) {
        {
            let mut state = self.state.lock();
            state.unfenced = false;
            state.stamp = state.stamp.max(stamp);
            state.mail.push_back(Mail::FencePassed);
        }
        self.filled.notify_one();
    }

    /// The last sequence stored in the inbox, from a check.
    pub(crate) fn checked(&self, last: u64) {
        self.state.lock().mail.push_back(Mail::Checked(last));
        self.filled.notify_one();
    }

    /// The connection is to end; the first reason counts.
    pub(crate) fn close(&self, ending: Ending) {
        self.state.lock().close.get_or_insert(ending);
        self.filled.notify_one();
    }

    /// The next letter. Cancel-safe: a letter is taken only when it is returned.
    pub(crate) async fn next(&self) -> Mail {
        loop {
            if let Some(mail) = self.state.lock().take() {
                return mail;
            }
            self.filled.notified().await;
        }
    }

    /// The next letter, if there is one now.
    pub(crate) fn try_next(&self) -> Option<Mail> {
        self.state.lock().take()
    }
}

impl State {
    /// Why the inbox must be read instead of taking a notice.
    fn objection(&self, told: &Told) -> Option<&'static str> {
        self.objection_to(told.stamp)
            .or(told.stored_before.then_some("stored before"))
    }

    /// Why nothing can be taken that is told with this stamp.
    const fn objection_to(&self, stamp: u64) -> Option<&'static str> {
        if self.unfenced {
            Some("unfenced")
        } else if self.suspected > 0 {
            Some("suspected")
        } else if stamp > self.stamp {
            Some("lane moved")
        } else if self.notices >= NOTICES_MAX {
            Some("mailbox full")
        } else {
            None
        }
    }

    fn withdraw(&mut self) {
        self.withdraw |= std::mem::take(&mut self.granted);
    }

    /// Notices before the doubt are found by the reading that follows it.
    fn doubt(&mut self) {
        self.doubt = true;
        self.suspected = 0;
        // Direct notices stay, to be refused.
        self.mail.retain(|mail| !matches!(mail, Mail::Notice { .. }));
        let directs = self.mail.iter().filter(|mail| matches!(mail, Mail::Direct(_)));
        self.notices = directs.count();
    }

    const fn is_suspected(&self, doubt: u64) -> bool {
        0 < self.suspected && self.suspected <= doubt
    }

    fn take(&mut self) -> Option<Mail> {
        if let Some(ending) = self.close.take() {
            return Some(Mail::Close(ending));
        }
        if std::mem::take(&mut self.doubt) {
            return Some(Mail::Doubt);
        }
        // Before what waits: that was told under a grant that has ended.
        if std::mem::take(&mut self.withdraw) {
            return Some(Mail::Withdraw);
        }
        let mail = self.mail.pop_front();
        if matches!(mail, Some(Mail::Notice { .. } | Mail::Direct(_))) {
            self.notices -= 1;
        }
        if self.mail.is_empty() {
            self.mail.shrink_to_fit();
        }
        mail
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::future::poll_immediate;
    use tidings_nats::{Entry, Event, Message};
    use tidings_protocol::{ChatId, ClientId, MessageId, Timestamp, UserId};
    use uuid::Uuid;

    use super::*;

    fn told(sequence: u64, stamp: u64, stored_before: bool) -> Told {
        let event = Event::Message(Message {
            chat_id: ChatId(Uuid::nil()),
            message_id: MessageId(Uuid::nil()),
            user_id: UserId::new("alice").expect("printable"),
            client_id: ClientId(Uuid::nil()),
            sent_at: Timestamp(0),
            message: String::new(),
            attachments: vec![],
        });
        Told {
            entry: Arc::new(Arrived::new(Entry { seq: sequence, event }, None)),
            sequence,
            bytes: 1,
            stamp,
            stamp_now: stamp,
            stored_before,
            worker: Uuid::nil(),
        }
    }

    /// What was told, in short.
    fn taken(mailbox: &Mailbox) -> Vec<String> {
        let mail = std::iter::from_fn(|| mailbox.try_next());
        mail.map(|mail| match mail {
            Mail::Notice { sequence, .. } => sequence.to_string(),
            other => format!("{other:?}"),
        })
        .collect()
    }

    #[test]
    fn a_notice_of_a_new_lane_is_a_reason_to_read() {
        let mailbox = Mailbox::default();
        mailbox.fence_passed(1);
        mailbox.notice(told(5, 1, false));
        assert_eq!(taken(&mailbox), ["FencePassed", "5"]);
        mailbox.notice(told(6, 1, false));
        mailbox.notice(told(7, 3, false));
        mailbox.notice(told(8, 3, false));
        assert_eq!(
            taken(&mailbox),
            ["Doubt"],
            "what is before 7 is read, and so are 6, 7 and 8"
        );
        mailbox.notice(told(9, 3, false));
        mailbox.notice(told(10, 2, false));
        assert_eq!(taken(&mailbox), ["9", "10"], "read since both lanes began");
    }

    fn told_directly(sequence: u64, stamp: u64) -> ToldDirectly {
        let Told { entry, bytes, .. } = told(sequence, stamp, false);
        ToldDirectly {
            entry,
            bytes,
            stamp,
            worker: Uuid::nil(),
            grant: 1,
        }
    }

    #[test]
    fn what_cannot_be_told_directly_ends_the_grant() {
        let mailbox = Mailbox::default();
        mailbox.fence_passed(1);
        mailbox.granted();
        assert_eq!(mailbox.direct(told_directly(5, 1)), Ok(()));
        assert_eq!(
            mailbox.direct(told_directly(6, 2)),
            Err(Untaken),
            "its lane is new"
        );
        let first: Vec<_> = std::iter::from_fn(|| mailbox.try_next()).collect();
        assert!(
            matches!(&first[..], [Mail::Withdraw, Mail::FencePassed, Mail::Direct(told)] if told.entry.seq == 5),
            "{first:?}"
        );
        mailbox.close(Ending::Restart);
        assert_eq!(mailbox.direct(told_directly(7, 1)), Err(Untaken));
    }

    #[test]
    fn a_doubt_keeps_what_was_told_directly_to_be_refused() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.direct(told_directly(5, 0)), Ok(()));
        mailbox.notice(told(6, 0, false));
        mailbox.suspect(1);
        let mail: Vec<_> = std::iter::from_fn(|| mailbox.try_next()).collect();
        assert!(
            matches!(&mail[..], [Mail::Doubt, Mail::Direct(told)] if told.entry.seq == 5),
            "{mail:?}"
        );
        assert_eq!(mailbox.state.lock().notices, 0);
    }

    #[test]
    fn a_check_that_clears_a_session_ends_its_grant() {
        let mailbox = Mailbox::default();
        mailbox.suspect(1);
        mailbox.clear(1, None);
        assert!(
            taken(&mailbox).is_empty(),
            "nothing was granted, and nobody is woken"
        );
        mailbox.granted();
        mailbox.suspect(2);
        assert_eq!(mailbox.direct(told_directly(5, 0)), Err(Untaken));
        assert_eq!(taken(&mailbox), ["Withdraw"]);
        mailbox.granted();
        mailbox.clear(2, Some(9));
        assert_eq!(taken(&mailbox), ["Withdraw", "Checked(9)"]);
    }

    #[test]
    fn one_reading_is_after_all_lanes_that_have_begun() {
        let mailbox = Mailbox::default();
        let first = Told {
            stamp_now: 7,
            ..told(5, 3, false)
        };
        mailbox.notice(first);
        assert_eq!(taken(&mailbox), ["Doubt"]);
        mailbox.notice(told(6, 7, false));
        assert_eq!(taken(&mailbox), ["6"]);
    }

    #[test]
    fn a_notice_during_a_doubt_moves_the_stamp_too() {
        let mailbox = Mailbox::default();
        mailbox.unfence();
        mailbox.notice(told(5, 2, false));
        assert_eq!(taken(&mailbox), ["Doubt"]);
        mailbox.fence_passed(0);
        mailbox.notice(told(6, 2, false));
        assert_eq!(taken(&mailbox), ["FencePassed", "6"]);
    }

    #[test]
    fn only_the_inbox_tells_whether_what_was_stored_before_is_still_there() {
        let mailbox = Mailbox::default();
        mailbox.notice(told(5, 0, true));
        assert_eq!(taken(&mailbox), ["Doubt"]);
    }

    #[test]
    fn a_suspected_session_is_cleared_by_a_check_or_reads_at_the_next_notice() {
        let mailbox = Mailbox::default();
        mailbox.suspect(1);
        assert!(taken(&mailbox).is_empty(), "nobody is woken");
        mailbox.clear(1, None);
        mailbox.notice(told(5, 0, false));
        assert_eq!(taken(&mailbox), ["5"]);
        mailbox.suspect(2);
        mailbox.suspect(3);
        mailbox.clear(2, Some(5));
        assert!(
            taken(&mailbox).is_empty(),
            "the check began before the last doubt"
        );
        mailbox.clear(3, Some(5));
        assert_eq!(taken(&mailbox), ["Checked(5)"]);
        mailbox.suspect(4);
        mailbox.notice(told(6, 0, false));
        mailbox.clear(4, Some(6));
        assert_eq!(taken(&mailbox), ["Doubt"], "it reads already");
        mailbox.suspect(5);
        mailbox.doubt_if_suspected(5);
        assert_eq!(taken(&mailbox), ["Doubt"]);
    }

    #[test]
    fn notices_that_wait_when_a_doubt_comes_are_read() {
        let mailbox = Mailbox::default();
        mailbox.notice(told(5, 0, false));
        mailbox.suspect(1);
        assert_eq!(taken(&mailbox), ["Doubt"]);
    }

    #[test]
    fn without_a_fence_every_notice_is_a_reason_to_read() {
        let mailbox = Mailbox::default();
        mailbox.unfence();
        assert_eq!(taken(&mailbox), ["Doubt"]);
        mailbox.notice(told(5, 0, false));
        assert_eq!(taken(&mailbox), ["Doubt"]);
        mailbox.fence_passed(0);
        mailbox.notice(told(6, 0, false));
        assert_eq!(taken(&mailbox), ["FencePassed", "6"]);
    }

    #[test]
    fn more_than_can_be_unconfirmed_is_read() {
        let mailbox = Mailbox::default();
        for sequence in 0..=NOTICES_MAX as u64 {
            mailbox.notice(told(sequence, 0, false));
        }
        assert_eq!(taken(&mailbox), ["Doubt"]);
    }

    #[test]
    fn an_end_comes_first_and_the_first_reason_counts() {
        let mailbox = Mailbox::default();
        mailbox.unfence();
        mailbox.close(Ending::Asked(CloseReason::Replaced));
        mailbox.close(Ending::Restart);
        assert_eq!(taken(&mailbox), ["Close(Asked(Replaced))", "Doubt"]);
    }

    #[test]
    fn as_many_wait_as_may_be_unconfirmed() {
        let mailbox = Mailbox::default();
        let most = NOTICES_MAX as u64;
        for round in 0..2 {
            let before = round * most;
            for sequence in 1..=most {
                mailbox.notice(told(before + sequence, 0, false));
            }
            assert!(matches!(mailbox.try_next(), Some(Mail::Notice { .. })));
            mailbox.notice(told(before + most + 1, 0, false));
            let expected: Vec<String> = (2..=most + 1)
                .map(|sequence| (before + sequence).to_string())
                .collect();
            assert_eq!(taken(&mailbox), expected);
        }
    }

    #[test]
    fn a_session_is_suspected_from_one_doubt_on() {
        let mailbox = Mailbox::default();
        assert!(!mailbox.is_suspected(0) && !mailbox.is_suspected(1));
        mailbox.suspect(2);
        assert!(!mailbox.is_suspected(1) && mailbox.is_suspected(2) && mailbox.is_suspected(3));
        mailbox.doubt_if_suspected(1);
        assert!(taken(&mailbox).is_empty(), "a check of before says nothing");
        mailbox.doubt_if_suspected(3);
        mailbox.suspect(4);
        assert!(!mailbox.is_suspected(4), "it is about to read");
        assert_eq!(taken(&mailbox), ["Doubt"]);
    }

    #[test]
    fn a_mailbox_says_how_its_session_stands() {
        let mailbox = Mailbox::default();
        assert!(!mailbox.is_unfenced() && !mailbox.is_closing());
        mailbox.unfence();
        mailbox.close(Ending::Restart);
        assert!(mailbox.is_unfenced() && mailbox.is_closing());
        mailbox.fence_passed(0);
        assert!(!mailbox.is_unfenced());
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_all_but_a_suspicion() {
        let wakes = async |tell: &dyn Fn(&Mailbox)| {
            let mailbox = Mailbox::default();
            let mut next = pin!(mailbox.next());
            assert!(poll_immediate(next.as_mut()).await.is_none());
            tell(&mailbox);
            poll_immediate(next).await.is_some()
        };
        assert!(wakes(&|mailbox| mailbox.notice(told(1, 0, false))).await);
        assert!(wakes(&|mailbox| mailbox.notice(told(1, 1, false))).await);
        assert!(wakes(&Mailbox::unfence).await);
        assert!(wakes(&|mailbox| mailbox.fence_passed(1)).await);
        assert!(wakes(&|mailbox| mailbox.checked(1)).await);
        assert!(wakes(&|mailbox| mailbox.close(Ending::Restart)).await);
        assert!(!wakes(&|mailbox| mailbox.suspect(1)).await);
        let suspected_and = async |then: &dyn Fn(&Mailbox)| {
            wakes(&|mailbox| {
                mailbox.suspect(1);
                then(mailbox);
            })
            .await
        };
        assert!(suspected_and(&|mailbox| mailbox.clear(1, Some(1))).await);
        assert!(!suspected_and(&|mailbox| mailbox.clear(1, None)).await);
        assert!(suspected_and(&|mailbox| mailbox.doubt_if_suspected(1)).await);
    }
}
