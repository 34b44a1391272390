//! Chats: of 100, their rules with the code and field of every refusal, and one order for everybody.

use std::collections::HashMap;

use tidings_protocol::{
    ChatKind, Codec, CreateChat, Error, ErrorCode, GetChat, ListChats, MessageId, ModifyChatParticipants,
    Operation, Reply, RequestId, Role, SendMessage, ServerFrame, UserId, You,
};
use tidings_tests::{Device, Identity, System};
use uuid::Uuid;

fn nobody(name: &str) -> UserId {
    Identity::fresh(name).user_id
}

fn create(id: u64, participants: Vec<UserId>, name: Option<&str>) -> CreateChat {
    CreateChat {
        id,
        request_id: RequestId(Uuid::new_v4()),
        participants,
        name: name.map(str::to_owned),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_of_a_hundred_works() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let connect = |number: usize| async move {
        let identity = Identity::fresh(&format!("m{number}"));
        Device::on(system, number, &identity, Codec::ALL[number % 2]).await
    };
    let mut members: Vec<Device> = futures::future::join_all((0..99).map(connect)).await;
    let others: Vec<UserId> = members.iter().map(Device::user_id).collect();
    let chat_id = alice.create_group(&others).await;
    for number in 0..5 {
        alice.say(chat_id, &number.to_string()).await;
    }
    members[98].say(chat_id, "I too").await;
    for (index, member) in members.iter_mut().enumerate() {
        let update = member.update().await;
        assert_eq!((update.you, update.participants.len()), (You::Added, 100));
        for number in 0..5 {
            assert_eq!(member.message().await.message, number.to_string());
        }
        if index < 98 {
            assert_eq!(member.message().await.message, "I too");
        }
    }
    assert_eq!(alice.message().await.message, "I too");

    let error = alice
        .modify(chat_id, &nobody("one-more"), Operation::Add)
        .await
        .expect_err("it is full");
    assert_eq!(
        (error.code, error.field.as_deref()),
        (ErrorCode::ChatFull, Some("userId"))
    );
    let id = alice.id();
    let hundred = (0..100).map(|number| nobody(&format!("n{number}"))).collect();
    let error = alice
        .request(create(id, hundred, Some("x")))
        .await
        .expect_err("101 with the creator");
    assert_eq!(
        (error.code, error.field.as_deref()),
        (ErrorCode::ChatFull, Some("participants"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_that_cannot_be_made_is_told_why() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let mut bob = Device::fresh(system, "bob").await;
    let alice_id = alice.user_id();
    alice
        .create_group(&[bob.user_id(), alice_id.clone(), bob.user_id()])
        .await;
    assert_eq!(
        bob.update().await.participants.len(),
        2,
        "duplicates and the creator are folded"
    );

    let long = "x".repeat(101);
    for (participants, name, code, field) in [
        (vec![], None, ErrorCode::BadRequest, "participants"),
        (
            vec![alice_id.clone()],
            Some("alone"),
            ErrorCode::BadRequest,
            "participants",
        ),
        (vec![bob.user_id()], Some(""), ErrorCode::BadRequest, "name"),
        (
            vec![bob.user_id()],
            Some(long.as_str()),
            ErrorCode::BadRequest,
            "name",
        ),
    ] {
        let id = alice.id();
        let error = alice
            .request(create(id, participants, name))
            .await
            .expect_err("refused");
        assert_eq!((error.code, error.field.as_deref()), (code, Some(field)));
    }

    assert_eq!(bob.settle().await, []);
}

/// The code and the field of a refusal.
fn refused(result: Result<Reply, Error>) -> (ErrorCode, String) {
    let error = result.expect_err("refused");
    (error.code, error.field.expect("a field"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_is_told_why() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let mut bob = Device::fresh(system, "bob").await;
    let mut stranger = Device::fresh(system, "stranger").await;
    let alice_id = alice.user_id();
    let chat_id = alice.create_group(&[bob.user_id()]).await;
    let somebody = nobody("somebody");
    let chat_field = |code| (code, "chatId".to_owned());
    assert_eq!(
        refused(bob.modify(chat_id, &somebody, Operation::Add).await),
        chat_field(ErrorCode::NotAdmin)
    );
    assert_eq!(
        refused(bob.modify(chat_id, &alice_id, Operation::Remove).await),
        chat_field(ErrorCode::NotAdmin)
    );
    assert_eq!(
        refused(stranger.modify(chat_id, &somebody, Operation::Add).await),
        chat_field(ErrorCode::NotAParticipant)
    );
    let nowhere = tidings_protocol::ChatId(Uuid::new_v4());
    assert_eq!(
        refused(alice.modify(nowhere, &somebody, Operation::Add).await),
        chat_field(ErrorCode::NotFound)
    );
    let message_id = MessageId(Uuid::new_v4());
    assert_eq!(
        refused(alice.say_as(nowhere, message_id, "x").await),
        chat_field(ErrorCode::NotFound)
    );
    assert_eq!(
        refused(stranger.say_as(chat_id, message_id, "x").await),
        chat_field(ErrorCode::NotAParticipant)
    );
    let id = stranger.id();
    assert_eq!(
        refused(stranger.request(GetChat { id, chat_id }).await),
        chat_field(ErrorCode::NotAParticipant)
    );

    let direct = alice.direct_chat(&bob.user_id()).await;
    for (user_id, operation) in [(&somebody, Operation::Add), (&alice_id, Operation::Remove)] {
        assert_eq!(
            refused(alice.modify(direct, user_id, operation).await),
            chat_field(ErrorCode::DirectChat)
        );
    }

    let id = alice.id();
    let send = |message: String| SendMessage {
        id,
        chat_id,
        message_id,
        message,
        attachments: vec![],
    };
    let at = |code, field: &str| (code, field.to_owned());
    assert_eq!(
        refused(alice.request(send("x".repeat(65_537))).await),
        at(ErrorCode::MessageTooLarge, "message")
    );
    assert_eq!(
        refused(alice.request(send(String::new())).await),
        at(ErrorCode::BadRequest, "message")
    );
    alice
        .request(send("x".repeat(65_536)))
        .await
        .expect("64 KiB are allowed");
    assert_eq!(bob.message().await.message.len(), 65_536);

    // Changes that change nothing are no errors.
    let again = alice
        .modify(chat_id, &bob.user_id(), Operation::Add)
        .await
        .expect("he is in");
    assert_eq!(again.changed, Some(false));
    let again = alice
        .modify(chat_id, &somebody, Operation::Remove)
        .await
        .expect("they are out");
    assert_eq!(again.changed, Some(false));
    // A request id is one request.
    let request_id = RequestId(Uuid::new_v4());
    let mut add = ModifyChatParticipants {
        id,
        request_id,
        chat_id,
        user_id: somebody,
        operation: Operation::Add,
    };
    alice.request(add.clone()).await.expect("added");
    add.operation = Operation::Remove;
    assert_eq!(
        refused(alice.request(add).await),
        at(ErrorCode::BadRequest, "requestId")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_admin_leaves_and_then_everybody() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let mut bob = Device::fresh(system, "bob").await;
    let mut carol = Device::on(system, 1, &Identity::fresh("carol"), Codec::Json).await;
    let (alice_id, bob_id, carol_id) = (alice.user_id(), bob.user_id(), carol.user_id());
    let chat_id = alice.create_group(&[bob_id.clone(), carol_id.clone()]).await;
    alice.update().await;
    bob.update().await;
    carol.update().await;

    alice
        .modify(chat_id, &alice_id, Operation::Remove)
        .await
        .expect("anyone may leave");
    assert_eq!(alice.update().await.you, You::Removed);
    let update = bob.update().await;
    assert_eq!(
        (update.you, &update.removed, &update.by),
        (You::Admin, &vec![alice_id.clone()], &alice_id)
    );
    assert_eq!(carol.update().await.you, You::Member);
    bob.modify(chat_id, &carol_id, Operation::Remove)
        .await
        .expect("bob is admin now");
    assert_eq!(carol.update().await.you, You::Removed);
    bob.say(chat_id, "to myself").await;
    bob.modify(chat_id, &bob_id, Operation::Remove)
        .await
        .expect("the last one leaves");
    let error = bob
        .say_as(chat_id, MessageId(Uuid::new_v4()), "anybody?")
        .await
        .expect_err("the chat is closed");
    assert_eq!(error.code, ErrorCode::ChatClosed);
    // After `removed`, nothing of the chat follows.
    assert_eq!(carol.settle().await, []);
    let id = carol.id();
    let page = carol
        .request(ListChats {
            id,
            after: None,
            limit: None,
        })
        .await
        .expect("listed");
    assert_eq!((page.chats, page.next.flatten()), (Some(vec![]), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chats_are_listed_page_by_page() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let bob = nobody("bob");
    let mut made = vec![alice.direct_chat(&bob).await];
    for _ in 0..4 {
        made.push(alice.create_group(std::slice::from_ref(&bob)).await);
    }
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let id = alice.id();
        let page = alice
            .request(ListChats {
                id,
                after,
                limit: Some(2),
            })
            .await
            .expect("listed");
        let chats = page.chats.expect("a page");
        assert!(chats.len() <= 2);
        listed.extend(chats);
        after = page.next.flatten();
        if after.is_none() {
            break;
        }
    }
    let direct = listed
        .iter()
        .find(|chat| chat.chat_id == made[0])
        .expect("listed");
    assert_eq!((direct.kind, direct.name.as_deref()), (ChatKind::Direct, None));
    let roles: HashMap<_, _> = listed[1]
        .participants
        .iter()
        .map(|p| (p.user_id.clone(), p.role))
        .collect();
    assert_eq!(roles.len(), 2);
    assert_eq!(roles[&alice.user_id()], Role::Admin);
    let mut ids: Vec<_> = listed.iter().map(|chat| chat.chat_id).collect();
    ids.sort_unstable();
    made.sort_unstable();
    assert_eq!(ids, made);
}

/// Members come and go while others send without pause: who was removed at N hears nothing above N, who was added
/// at N everything above N and nothing below, and everybody hears everything in one order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_messages_have_one_order_for_everybody() {
    let system = System::shared().await;
    let mut admin = Device::fresh(system, "admin").await;
    let mut watchers = Vec::new();
    for number in 0..3 {
        watchers.push(Device::on(system, number, &Identity::fresh("watcher"), Codec::Json).await);
    }
    let mut dave = Device::on(system, 1, &Identity::fresh("dave"), Codec::Json).await;
    let others: Vec<UserId> = watchers.iter().map(Device::user_id).collect();
    let chat_id = admin.create_group(&others).await;

    let mut senders = Vec::new();
    for number in 0..2 {
        let identity = watchers[number].identity.clone();
        let mut sender = watchers.remove(number);
        senders.push(tokio::spawn(async move {
            let mut sent = Vec::new();
            for text in 0..300 {
                let reply = sender.say(chat_id, &format!("{number} {text}")).await;
                sent.push(reply.seq.expect("a seq"));
            }
            (identity, sender, sent)
        }));
    }
    // In and out, twenty times, while they send.
    let dave_id = dave.user_id();
    let mut spans = Vec::new();
    for _ in 0..20 {
        let added = admin
            .modify(chat_id, &dave_id, Operation::Add)
            .await
            .expect("added")
            .seq
            .expect("a seq");
        let removed = admin
            .modify(chat_id, &dave_id, Operation::Remove)
            .await
            .expect("removed")
            .seq
            .expect("a seq");
        spans.push((added, removed));
    }
    let mut sent = Vec::new();
    let mut devices = Vec::new();
    for sender in senders {
        let (_, device, mine) = sender.await.expect("a sender goes on to its end");
        sent.extend(mine);
        devices.push(device);
    }
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len(), 600, "every message has a place of its own");

    // The end: a last message that everybody who is in hears.
    let end = admin.say(chat_id, "end").await.seq.expect("a seq");
    let watcher = &mut watchers[0];
    let mut order = Vec::new();
    while order.last() != Some(&end) {
        order.push(next_seq(watcher).await);
    }
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(order, sorted, "one order");
    let mut expected: Vec<u64> = sent
        .iter()
        .copied()
        .chain(spans.iter().flat_map(|(a, r)| [*a, *r]))
        .collect();
    expected.push(end);
    expected.sort_unstable();
    assert_eq!(order[1..], expected, "the chat's first event, then everything");

    // Dave: exactly what lies in his spans, their borders included.
    let expected: Vec<u64> = expected
        .into_iter()
        .filter(|seq| {
            spans
                .iter()
                .any(|(added, removed)| (added..=removed).contains(&seq))
        })
        .collect();
    let mut heard = Vec::new();
    while heard.len() < expected.len() {
        let seq = next_seq(&mut dave).await;
        heard.push(seq);
    }
    assert_eq!(heard, expected);
    let rest = dave.settle().await;
    assert!(rest.is_empty(), "after the end: {rest:?}");
}

/// The seq of the next delivery, which is confirmed.
async fn next_seq(device: &mut Device) -> u64 {
    let (seq, delivery) = device
        .expect("a delivery", |heard| match heard {
            ServerFrame::NewMessage(message) => Some((message.seq, message.delivery)),
            ServerFrame::ChatUpdate(update) => Some((update.seq, update.delivery)),
            _ => None,
        })
        .await;
    device.confirm(delivery).await;
    seq
}
