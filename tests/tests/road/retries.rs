//! The same again does its work once: messages, chats, changes.

use tidings_protocol::{Codec, CreateChat, MessageId, ModifyChatParticipants, Operation, RequestId};
use tidings_tests::{Device, Identity, System};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_message_is_accepted_twice_and_delivered_once() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let identity = alice.identity.clone();
    let mut bob = Device::fresh(system, "bob").await;
    let chat_id = alice.direct_chat(&bob.user_id()).await;
    bob.update().await;

    let message_id = MessageId(Uuid::now_v7());
    let first = alice.say_as(chat_id, message_id, "once").await.expect("accepted");
    assert_eq!(first.duplicate, None);
    let again = alice
        .say_as(chat_id, message_id, "once")
        .await
        .expect("accepted again");
    assert_eq!((again.seq, again.duplicate), (first.seq, Some(true)));
    alice.close().await;
    for gateway in [0, 1] {
        let mut alice = Device::on(system, gateway, &identity, Codec::Postcard).await;
        let again = alice
            .say_as(chat_id, message_id, "once")
            .await
            .expect("accepted again");
        assert_eq!((again.seq, again.duplicate), (first.seq, Some(true)));
        alice.close().await;
    }
    let mut alice = Device::of(system, &identity).await;
    alice.say(chat_id, "the end").await;
    assert_eq!(bob.message().await.message, "once");
    assert_eq!(bob.message().await.message, "the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_in_two_chats_is_two_messages() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let mut bob = Device::fresh(system, "bob").await;
    let chats = [
        alice.direct_chat(&bob.user_id()).await,
        alice.create_group(&[bob.user_id()]).await,
    ];
    let message_id = MessageId(Uuid::now_v7());
    for chat_id in chats {
        let reply = alice
            .say_as(chat_id, message_id, "forwarded")
            .await
            .expect("accepted");
        assert_eq!(reply.duplicate, None);
    }
    let mut heard = [bob.message().await.chat_id, bob.message().await.chat_id];
    let mut expected = chats;
    heard.sort_unstable();
    expected.sort_unstable();
    assert_eq!(heard, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_does_its_work_once() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let identity = alice.identity.clone();
    let [bob, carol] = ["bob", "carol"].map(|name| Identity::fresh(name).user_id);
    let create = CreateChat {
        id: 100,
        request_id: RequestId(Uuid::new_v4()),
        participants: vec![bob],
        name: Some("once".to_owned()),
    };
    let first = alice.request(create.clone()).await.expect("created");
    assert_eq!(first.created, Some(true));
    let again = alice.request(create.clone()).await.expect("the same again");
    assert_eq!(again, first);

    let chat_id = first.chat_id.expect("a chatId");
    let add = ModifyChatParticipants {
        id: 101,
        request_id: RequestId(Uuid::new_v4()),
        chat_id,
        user_id: carol.clone(),
        operation: Operation::Add,
    };
    let added = alice.request(add.clone()).await.expect("added");
    assert_eq!(added.changed, Some(true));
    assert!(added.seq > first.seq);
    let removed = alice
        .modify(chat_id, &carol, Operation::Remove)
        .await
        .expect("removed");
    assert_eq!(removed.changed, Some(true));
    drop(alice);
    // Somewhere else, later: the same answers, and carol stays out.
    let mut alice = Device::on(system, 1, &identity, Codec::Json).await;
    assert_eq!(alice.request(create).await.expect("the same again"), first);
    assert_eq!(alice.request(add).await.expect("the same again"), added);
    let get = tidings_protocol::GetChat { id: 102, chat_id };
    let chat = alice.request(get).await.expect("found").chat.expect("a chat");
    assert_eq!((chat.version, chat.participants.len()), (3, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_direct_chat_of_two_is_one_also_when_both_ask_at_once() {
    let system = System::shared().await;
    for _ in 0..5 {
        let [alice, bob] = ["alice", "bob"].map(Identity::fresh);
        let (mut alice, mut bob) = tokio::join!(
            Device::on(system, 0, &alice, Codec::Json),
            Device::on(system, 1, &bob, Codec::Json)
        );
        let (bob_id, alice_id) = (bob.user_id(), alice.user_id());
        let (one, other) = tokio::join!(alice.direct_chat(&bob_id), bob.direct_chat(&alice_id));
        assert_eq!(one, other);
        assert_eq!(alice.direct_chat(&bob_id).await, one);
        for device in [&mut alice, &mut bob] {
            let update = device.update().await;
            assert_eq!((update.chat_id, update.version), (one, 1));
        }
    }
}
