//! What can never be processed is put aside with its reason, and its partition goes on in order.

use std::time::Duration;

use bytes::Bytes;
use tidings_nats::{DEAD_LETTERS, Event, HEADER_REASON, HEADER_TRIES, Message, chat_subject};
use tidings_protocol::{ChatId, MessageId, Timestamp};
use uuid::Uuid;

use crate::support::{Person, System, texts};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A dead letter.
struct Letter {
    subject: String,
    reason: String,
    tries: String,
    payload: Bytes,
}

impl System {
    /// Publishes bytes to CHATS, as no gateway does.
    async fn inject(&self, subject: &str, payload: Bytes) {
        let id = Uuid::new_v4().to_string();
        let bus = &self.context.bus;
        let accepted = bus
            .publish_with_id(subject.to_owned(), &id, payload, TIMEOUT)
            .await;
        accepted.expect("CHATS takes it");
    }

    fn subject(&self, chat_id: ChatId) -> String {
        chat_subject(self.context.topology.partition(chat_id), chat_id)
    }

    /// Every dead letter, in order.
    async fn letters(&self) -> Vec<Letter> {
        let count = self.stored(DEAD_LETTERS).await;
        let jetstream = self.context.bus.jetstream();
        let stream = jetstream.get_stream(DEAD_LETTERS).await;
        let stream = stream.expect("the stream is there");
        let mut letters = Vec::new();
        for sequence in 1..=count {
            let letter = stream.get_raw_message(sequence).await;
            let letter = letter.expect("none was deleted");
            let header = |name: &str| {
                let value = letter.headers.get(name).map(ToString::to_string);
                value.unwrap_or_default()
            };
            letters.push(Letter {
                subject: letter.subject.to_string(),
                reason: header(HEADER_REASON),
                tries: header(HEADER_TRIES),
                payload: letter.payload.clone(),
            });
        }
        letters
    }
}

fn message(chat_id: ChatId, from: &Person, text: &str) -> Event {
    Event::Message(Message {
        chat_id,
        message_id: MessageId(Uuid::new_v4()),
        user_id: from.user_id.clone(),
        client_id: from.client_id,
        sent_at: Timestamp(0),
        message: text.to_owned(),
        attachments: vec![],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_poison_is_put_aside_with_its_reason_and_order_is_kept() {
    let system = System::start(1).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let subject = system.subject(chat_id);
    let nobodys = ChatId(Uuid::new_v4());
    let mut longer = message(chat_id, &alice, "one byte too many").encode().to_vec();
    longer.push(0);
    let valid = message(chat_id, &alice, "elsewhere").encode();
    let huge = vec![7; 900_000];
    let poison: Vec<(&str, String, Bytes)> = vec![
        ("malformed: empty", subject.clone(), Bytes::new()),
        ("malformed: unknown format 0", subject.clone(), vec![0, 1].into()),
        ("malformed: ", subject.clone(), vec![1, 9, 9].into()),
        ("malformed: ", subject.clone(), vec![1; 300].into()),
        ("malformed: ", subject.clone(), valid.slice(..valid.len() - 5)),
        ("malformed: 1 bytes too many", subject.clone(), longer.into()),
        ("malformed: ", subject.clone(), [&[1][..], &huge].concat().into()),
        (
            "its subject is not that of its chat",
            "chat.00.nonsense".into(),
            valid.clone(),
        ),
        (
            "its subject is not that of its chat",
            system.subject(nobodys),
            valid,
        ),
        (
            "no such chat",
            system.subject(nobodys),
            message(nobodys, &alice, "hello?").encode(),
        ),
    ];
    for (place, (_, subject, payload)) in poison.iter().enumerate() {
        system.send(chat_id, &alice, &place.to_string()).await;
        system.inject(subject, payload.clone()).await;
    }
    system.send(chat_id, &alice, "still here").await;
    let worker = system.worker().await;
    let entries = system.wait_for_entries(&bob, 1 + poison.len() + 1).await;
    let mut expected: Vec<String> = (0..poison.len()).map(|place| place.to_string()).collect();
    expected.push("still here".to_owned());
    assert_eq!(texts(&entries)[&chat_id], expected);
    system.wait_until_fanned_out().await;

    let mut letters = system.letters().await;
    assert_eq!(letters.len(), poison.len());
    for (reason, subject, payload) in &poison {
        // Chats run side by side, so letters of several come in any order.
        let of = |letter: &Letter| letter.subject[5..] == subject[5..] && letter.payload == *payload;
        let place = letters.iter().position(of);
        let letter = letters.remove(place.unwrap_or_else(|| panic!("no letter for {reason}")));
        assert!(
            letter.reason.starts_with(reason),
            "{} is not {reason}",
            letter.reason
        );
        assert_eq!(letter.tries, "1");
    }
    worker.stop().await;
}

/// An event that CHATS takes and an inbox's stream refuses for itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_too_large_for_any_inbox_is_put_aside() {
    let system = System::start(1).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    // Larger than what a gateway lets pass. The entry is as large, and has more headers.
    let text = "x".repeat(1_048_576 - 200);
    system
        .inject(&system.subject(chat_id), message(chat_id, &alice, &text).encode())
        .await;
    system.send(chat_id, &alice, "small").await;
    let worker = system.worker().await;
    let entries = system.wait_for_entries(&bob, 2).await;
    assert_eq!(texts(&entries)[&chat_id], ["small"]);
    system.wait_until_fanned_out().await;
    let letters = system.letters().await;
    assert_eq!(letters[0].reason, "the message is too large");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_panics_are_final_and_other_chats_go_on_meanwhile() {
    let system = System::start(1).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let (other, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    system.send(chat_id, &alice, "before").await;
    system.send(chat_id, &alice, "makes panic").await;
    system.send(chat_id, &alice, "after").await;
    system.send(other, &alice, "beside").await;
    let worker = system.worker_with(&["--fault", "panic:makes panic"]).await;
    let entries = system.wait_for_entries(&bob, 5).await;
    let texts = texts(&entries);
    assert_eq!(
        (&texts[&chat_id][..], &texts[&other][..]),
        (
            &["before".to_owned(), "after".to_owned()][..],
            &["beside".to_owned()][..]
        )
    );
    let place = |text: &str| {
        entries
            .iter()
            .position(|(_, entry)| matches!(&entry.event, Event::Message(message) if message.message == text))
    };
    assert!(
        place("beside") < place("after"),
        "the other chat does not wait for the five tries"
    );
    system.wait_until_fanned_out().await;
    let letters = system.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "its handler panicked 5 times: on purpose");
    assert_eq!(letters[0].tries, "5");
    worker.stop().await;
}
