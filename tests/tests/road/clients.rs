//! Three clients a user, each with an inbox of its own; the newest connection of a client wins.

use tidings_protocol::{CloseCode, Codec, ErrorCode, ListClients, Registration, RemoveClient, ServerFrame};
use tidings_tests::{Device, Identity, Stored, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_three_clients_hears_and_confirms_for_itself() {
    let system = System::shared().await;
    let stored = Stored::of(system).await;
    let alice = Identity::fresh("alice");
    let other = Identity::new(&alice.user_id);
    let mut alice = Device::of(system, &alice).await;
    let mut alice_elsewhere = Device::on(system, 1, &other, Codec::Postcard).await;
    let first = Identity::fresh("bob");
    let mut bobs = Vec::new();
    for gateway in 0..3 {
        let identity = if gateway == 0 {
            first.clone()
        } else {
            Identity::new(&first.user_id)
        };
        bobs.push(Device::on(system, gateway, &identity, Codec::ALL[gateway % 2]).await);
    }
    let chat_id = alice.direct_chat(&first.user_id).await;
    for number in 0..20 {
        alice.say(chat_id, &number.to_string()).await;
    }
    for device in bobs.iter_mut().chain([&mut alice_elsewhere]) {
        assert_eq!(device.update().await.version, 1);
        for number in 0..20 {
            assert_eq!(device.message().await.message, number.to_string());
        }
        assert_eq!(device.settle().await, []);
    }
    // The sending client gets no copy of its messages, but the chatUpdate that it caused.
    assert_eq!(alice.update().await.version, 1);
    assert_eq!(alice.settle().await, []);

    bobs[0].confirm_through(21).await;
    bobs[1].confirm_through(11).await;
    for (device, left) in bobs.iter().zip([0, 10, 21]) {
        stored
            .until(&device.user_id(), device.identity.client_id, left)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_client_takes_the_place_of_one() {
    let system = System::shared().await;
    let first = Identity::fresh("bob");
    let mut devices = Vec::new();
    for gateway in 0..3 {
        let identity = if gateway == 0 {
            first.clone()
        } else {
            Identity::new(&first.user_id)
        };
        devices.push(Device::on(system, gateway, &identity, Codec::Json).await);
    }
    let fourth = Identity::new(&first.user_id);
    let (mut newcomer, refused) = Device::hello(system, 1, &fourth, Codec::Json, None).await;
    let error = refused.expect_err("three are enough");
    assert_eq!((error.code, error.retryable), (ErrorCode::TooManyClients, false));
    let mut listed: Vec<_> = error
        .clients
        .expect("the three")
        .iter()
        .map(|info| (info.client_id, info.online))
        .collect();
    let mut expected: Vec<_> = devices
        .iter()
        .map(|device| (device.identity.client_id, true))
        .collect();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);

    // On the same connection, somebody else's client cannot be replaced, and one of the three can.
    let stranger = Identity::fresh("stranger");
    let error = newcomer
        .say_hello(&system.secret(), Some(stranger.client_id))
        .await
        .expect_err("not one of the three");
    assert_eq!(
        (error.code, error.field.as_deref()),
        (ErrorCode::NotFound, Some("replace"))
    );
    let mut removed = devices.remove(1);
    let welcome = newcomer
        .say_hello(&system.secret(), Some(removed.identity.client_id))
        .await
        .expect("there is room");
    assert_eq!(welcome.registration, Registration::New);
    newcomer.until_caught_up().await;

    let (closed, heard) = removed.until_closed().await;
    assert_eq!(closed.close_code(), Some(CloseCode::Forbidden));
    assert!(
        matches!(heard.last(), Some(ServerFrame::Closing(closing))
            if closing.code == ErrorCode::ClientRemoved && !closing.reconnect),
        "{heard:?}"
    );
    // Removed is final, on every gateway.
    for gateway in [0, 1] {
        let (mut back, refused) = Device::hello(system, gateway, &removed.identity, Codec::Json, None).await;
        assert_eq!(
            refused.expect_err("it was removed").code,
            ErrorCode::ClientRemoved
        );
        assert_eq!(
            back.until_closed().await.0.close_code(),
            Some(CloseCode::Forbidden)
        );
    }
    // The newcomer hears what is said from now on; so does who was there before; the removed one has no inbox.
    let mut alice = Device::fresh(system, "alice").await;
    let chat_id = alice.direct_chat(&first.user_id).await;
    alice.say(chat_id, "who is there?").await;
    for device in devices.iter_mut().chain([&mut newcomer]) {
        assert_eq!(device.message().await.message, "who is there?");
    }
    Stored::of(system)
        .await
        .until(&first.user_id, removed.identity.client_id, 0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_removes_another_one() {
    let system = System::shared().await;
    let phone = Identity::fresh("alice");
    let lost = Identity::new(&phone.user_id);
    let mut phone = Device::of(system, &phone).await;
    let mut lost = Device::on(system, 1, &lost, Codec::Json).await;
    let id = phone.id();
    let clients = phone
        .request(ListClients { id })
        .await
        .expect("listed")
        .clients
        .expect("clients");
    assert_eq!(clients.len(), 2);
    assert!(clients.iter().all(|client| client.online));
    let id = phone.id();
    phone
        .request(RemoveClient {
            id,
            client_id: lost.identity.client_id,
        })
        .await
        .expect("removed");
    assert_eq!(
        lost.until_closed().await.0.close_code(),
        Some(CloseCode::Forbidden)
    );
    let id = phone.id();
    let clients = phone
        .request(ListClients { id })
        .await
        .expect("listed")
        .clients
        .expect("clients");
    assert_eq!(clients.len(), 1);
    let id = phone.id();
    let stranger = Identity::fresh("stranger").client_id;
    let error = phone
        .request(RemoveClient {
            id,
            client_id: stranger,
        })
        .await
        .expect_err("not one of hers");
    assert_eq!(
        (error.code, error.field.as_deref()),
        (ErrorCode::NotFound, Some("clientId"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_connection_of_a_client_wins() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let bob = Identity::fresh("bob");
    let chat_id = alice.direct_chat(&bob.user_id).await;
    let mut old = Device::of(system, &bob).await;
    old.update().await;
    for gateway in [0, 1, 1, 0] {
        let mut new = Device::on(system, gateway, &bob, Codec::Json).await;
        let (closed, heard) = old.until_closed().await;
        assert_eq!(closed.close_code(), Some(CloseCode::Replaced));
        assert!(
            matches!(heard.last(), Some(ServerFrame::Closing(closing)) if !closing.reconnect),
            "{heard:?}"
        );
        alice.say(chat_id, &format!("to gateway {gateway}")).await;
        // Nothing was confirmed, so everything comes again before the new one.
        loop {
            let message = new.message().await;
            if message.message == format!("to gateway {gateway}") {
                new.confirm_through(message.delivery).await;
                break;
            }
        }
        old = new;
    }
    Stored::of(system)
        .await
        .until(&bob.user_id, bob.client_id, 0)
        .await;
}
