//! Direct delivery: who has granted it is told before anything is stored, and only what is not confirmed is stored.

use tidings_nats::{
    BODIES, BODY_ENTRIES, BodyEntries, CHATS, DirectAnswer, DirectAnswers, Inbox, InboxEntry, direct_subject,
};
use tidings_protocol::{ChatId, Operation};

use crate::support::{Gateway, LONG_ROUNDS, Person, System, TIMEOUT, Worker, eventually, texts};

/// A chat of alice and bob, where bob is connected to `g1` and has granted direct delivery.
pub(crate) struct Granted {
    pub(crate) system: System,
    /// Where the worker is answered.
    subject: String,
    gateway: Gateway,
    alice: Person,
    bob: Person,
    chat_id: ChatId,
    /// Entries of bob's inbox from before.
    before: usize,
}

const CONNECTION: u64 = 7;
const GRANT: u32 = 3;

impl Granted {
    async fn start() -> (Self, Worker) {
        let (mut granted, worker) = Self::without_grant(&[]).await;
        granted.grant().await;
        (granted, worker)
    }

    /// Of a worker with these settings, whom bob has granted nothing.
    pub(crate) async fn without_grant(settings: &[&str]) -> (Self, Worker) {
        let system = System::start(4).await;
        let (alice, bob) = (system.register("alice").await, system.register("bob").await);
        let mut gateway = Gateway::listen(&system, "g1").await;
        let worker = system.worker_with(settings).await;
        let revision = system.connect(&bob, "g1", CONNECTION).await;
        gateway
            .beacon(|beacon| beacon.sessions_revision >= revision)
            .await;
        let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
        system.wait_for_entries(&bob, 1).await;
        let granted = Self {
            system,
            subject: direct_subject(&worker.context.boot_id.to_string()),
            gateway,
            alice,
            bob,
            chat_id,
            before: 1,
        };
        (granted, worker)
    }

    async fn answer(&self, answers: Vec<DirectAnswer>) {
        let client = self.system.context.nats.client();
        let answers = DirectAnswers::encode(&answers);
        let sent = client.publish(self.subject.clone(), answers).await;
        sent.expect("NATS is connected");
    }

    fn granted(&self, grant: u32) -> DirectAnswer {
        DirectAnswer::Granted {
            client_id: self.bob.client_id,
            connection: CONNECTION,
            grant,
        }
    }

    /// Until the worker has taken it: it tells directly from then on.
    async fn grant(&mut self) {
        self.answer(vec![self.granted(GRANT)]).await;
        loop {
            let event = self.say("is it granted?").await;
            // It is confirmed where it was told directly; where it was not, it is stored, and this means nothing.
            let told = self.gateway.is_direct(event).await;
            self.confirm(event).await;
            self.system.wait_until_fanned_out().await;
            if told {
                // Some were stored, before the grant or since their confirmation took long.
                let inbox = Inbox::Client(self.bob.client_id);
                self.before = self.system.inbox(&self.bob.user_id, inbox).await.len();
                return;
            }
        }
    }

    /// Of a worker whose rounds of deletions nothing ends by itself: bob has granted it, and this event was told directly, is
    /// confirmed and waits for a round to end, alone.
    pub(crate) async fn with_long_round() -> (Self, Worker, u64) {
        let (mut granted, worker) = Box::pin(Self::without_grant(LONG_ROUNDS)).await;
        granted.answer(vec![granted.granted(GRANT)]).await;
        loop {
            let event = granted.say("is it granted?").await;
            let told = granted.gateway.is_direct(event).await;
            granted.confirm(event).await;
            if told {
                granted.wait_until_stored_in_chats(1).await;
                return (granted, worker, event);
            }
        }
    }

    /// What nobody was told directly waits for no round.
    pub(crate) async fn wait_until_stored_in_chats(&self, events: u64) {
        let what = format!("{events} events wait for a round to end");
        eventually(&what, async || self.system.stored(CHATS).await == events).await;
    }

    /// Returns once the gateway is told of it, in whatever way.
    pub(crate) async fn say_and_hear(&mut self, text: &str) {
        let event = self.say(text).await;
        self.gateway.is_direct(event).await;
    }

    pub(crate) async fn is_in_chats(&self, event: u64) -> bool {
        let bus = &self.system.context.bus;
        let stored = bus.message_at(CHATS, event, TIMEOUT).await;
        stored.expect("CHATS answers").is_some()
    }

    async fn say(&self, text: &str) -> u64 {
        self.system.send(self.chat_id, &self.alice, text).await
    }

    async fn confirm(&self, event: u64) {
        let client_id = self.bob.client_id;
        self.answer(vec![DirectAnswer::Confirmed { event, client_id }])
            .await;
    }

    /// Bob's inbox, as it is stored.
    async fn all(&self) -> Vec<InboxEntry> {
        let inbox = Inbox::Client(self.bob.client_id);
        let entries = self.system.stored_inbox(&self.bob.user_id, inbox).await;
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    /// The texts in bob's inbox since the beginning.
    async fn stored(&self) -> Vec<String> {
        let inbox = self
            .system
            .inbox(&self.bob.user_id, Inbox::Client(self.bob.client_id))
            .await;
        let mut texts = texts(&inbox[self.before..]);
        texts.remove(&self.chat_id).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_confirmed_is_never_stored() {
    let (mut granted, worker) = Granted::start().await;
    // On a machine that stands still for a second it is stored, and told again.
    for attempt in 0.. {
        let event = granted.say("hello").await;
        let notice = granted.gateway.direct().await;
        let recipient = notice.recipients[0];
        assert_eq!(
            (recipient.client_id, recipient.connection, recipient.grant),
            (granted.bob.client_id, CONNECTION, GRANT)
        );
        assert_eq!(notice.recipients.len(), 1, "the sender gets no copy");
        granted.confirm(event).await;
        granted.system.wait_until_fanned_out().await;
        if granted.stored().await.len() == attempt {
            break;
        }
        assert!(attempt < 10, "it is always stored");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_confirmed_is_stored_after_a_second_and_told_again() {
    let (mut granted, worker) = Granted::start().await;
    for text in ["one", "two", "three"] {
        granted.say(text).await;
        granted.gateway.direct().await;
    }
    granted.system.wait_until_fanned_out().await;
    assert_eq!(granted.stored().await, ["one", "two", "three"]);
    let mut sequences = Vec::new();
    for _ in 0..3 {
        let notice = granted.gateway.notice().await;
        sequences.push(notice.recipients[0].sequence);
    }
    assert!(sequences.is_sorted(), "{sequences:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_stored_before_what_comes_after_it() {
    let (mut granted, worker) = Granted::start().await;
    let refused = granted.say("refused").await;
    granted.gateway.direct().await;
    let client_id = granted.bob.client_id;
    // A later grant does not let anything overtake it.
    granted
        .answer(vec![
            DirectAnswer::Refused {
                event: refused,
                client_id,
            },
            granted.granted(GRANT + 1),
        ])
        .await;
    granted.say("after it").await;
    let notice = granted.gateway.notice().await;
    let first = notice.recipients[0].sequence;
    let stored = granted.stored().await;
    assert_eq!(stored[0], "refused", "{stored:?}");
    granted.system.wait_until_fanned_out().await;
    let stored = granted.stored().await;
    assert_eq!(stored, ["refused", "after it"]);
    assert!(first > 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beacon_waits_until_what_was_told_elsewhere_is_stored() {
    let (mut granted, worker) = Granted::start().await;
    granted.say("told elsewhere").await;
    granted.gateway.direct().await;
    let revision = granted.system.connect(&granted.bob, "g1", CONNECTION + 1).await;
    granted
        .gateway
        .beacon(|beacon| beacon.sessions_revision >= revision)
        .await;
    assert_eq!(granted.stored().await, ["told elsewhere"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_takes_over_stores_what_was_not_confirmed() {
    let (mut granted, worker) = Granted::start().await;
    for text in ["one", "two"] {
        granted.say(text).await;
        granted.gateway.direct().await;
    }
    let successor = granted.system.worker().await;
    worker.kill();
    granted.system.wait_until_fanned_out().await;
    assert_eq!(granted.stored().await, ["one", "two"]);
    successor.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_leaves_nothing_behind() {
    let (mut granted, worker) = Granted::start().await;
    granted.say("before the end").await;
    granted.gateway.direct().await;
    worker.stop().await;
    assert_eq!(
        granted.system.stored("CHATS").await,
        0,
        "nobody has to do it again"
    );
    assert_eq!(granted.stored().await, ["before the end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_new_waits_for_no_round_of_deletions() {
    let (mut granted, worker, confirmed) = Granted::with_long_round().await;
    // The other way for an event to be finished, which is seen.
    let refused = granted.say("refused").await;
    let mut finished = vec![confirmed];
    // A machine that stands still for a second has it stored at once.
    if granted.gateway.is_direct(refused).await {
        let (event, client_id) = (refused, granted.bob.client_id);
        granted
            .answer(vec![DirectAnswer::Refused { event, client_id }])
            .await;
        assert!(!granted.gateway.is_direct(refused).await, "it is stored");
        finished.push(refused);
    }
    granted.wait_until_stored_in_chats(finished.len() as u64).await;
    let carol = granted.system.register("carol").await;
    let alice = granted.alice.user_id.clone();
    granted
        .system
        .modify(granted.chat_id, &alice, Operation::Add, &carol.user_id)
        .await;
    granted.system.wait_for_entries(&carol, 1).await;
    for event in finished {
        assert!(!granted.is_in_chats(event).await, "{event} might come behind");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_switched_off_everything_is_stored() {
    let (granted, worker) = Granted::without_grant(&["--direct-delivery", "off"]).await;
    granted.answer(vec![granted.granted(GRANT)]).await;
    for text in ["one", "two", "three"] {
        granted.say(text).await;
    }
    granted.system.wait_until_fanned_out().await;
    assert_eq!(granted.stored().await, ["one", "two", "three"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_and_not_confirmed_refers_to_the_body_that_others_refer_to() {
    let (granted, worker) = Granted::start().await;
    let alice = granted.alice.user_id.clone();
    let mut others = Vec::new();
    for name in ["carol", "dave"] {
        let person = granted.system.register(name).await;
        granted
            .system
            .modify(granted.chat_id, &alice, Operation::Add, &person.user_id)
            .await;
        others.push(person);
    }
    granted.system.wait_until_fanned_out().await;
    let event = granted.say(&"x".repeat(10_000)).await;
    granted.system.wait_until_fanned_out().await;
    let mut bodies = Vec::new();
    let mut expected = Vec::new();
    for person in others.iter().chain([&granted.bob]) {
        let inbox = Inbox::Client(person.client_id);
        let entries = granted.system.stored_inbox(&person.user_id, inbox).await;
        let (sequence, entry) = entries.last().expect("it is stored");
        let InboxEntry::Reference(reference) = entry else {
            panic!("{} has all of it", person.user_id);
        };
        assert_eq!(reference.seq, event);
        bodies.push(reference.to.body);
        expected.push((granted.system.context.topology.shard(&person.user_id), *sequence));
    }
    expected.sort_unstable();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let lists = granted
        .system
        .context
        .bus
        .leader_all(BODIES, BODY_ENTRIES, 1, 9, TIMEOUT)
        .await;
    let lists = lists.expect("BODIES answers");
    let list = lists.last().expect("there is a list");
    let list = BodyEntries::decode(&list.payload).expect("a worker wrote it");
    assert_eq!((list.seq, list.body, list.entries), (event, bodies[0], expected));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_and_stored_for_one_at_a_time_is_whole() {
    let (mut granted, worker) = Granted::start().await;
    let alice = granted.alice.user_id.clone();
    let carol = granted.system.register("carol").await;
    let added = granted
        .system
        .modify(granted.chat_id, &alice, Operation::Add, &carol.user_id)
        .await;
    granted.gateway.is_direct(added).await;
    granted.confirm(added).await;
    granted.system.wait_until_fanned_out().await;
    granted.before = granted.all().await.len();
    // At once for carol, and later for bob, with the next one that is for both.
    granted.say(&"x".repeat(10_000)).await;
    granted.gateway.direct().await;
    granted.system.wait_for_entries(&carol, 2).await;
    granted.answer(vec![granted.granted(GRANT + 1)]).await;
    granted.say("after it").await;
    granted.system.wait_until_fanned_out().await;
    assert_eq!(
        granted.stored().await,
        ["x".repeat(10_000), "after it".to_owned()]
    );
    for entry in granted.all().await {
        assert!(matches!(entry, InboxEntry::Whole(_)), "{entry:?}");
    }
    assert_eq!(granted.system.stored(BODIES).await, 0);
    worker.stop().await;
}
