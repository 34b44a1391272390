//! Processes come and go: clients are told, nothing is lost.

use nix::sys::signal::Signal;
use tidings_protocol::{CloseCode, Codec, ErrorCode, ServerFrame};
use tidings_tests::{Device, Identity, Stored, System, SystemOptions, eventually};

/// A system of one's own, since others would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_may_stop_or_die() {
    let system = System::start(&SystemOptions::default()).await;
    let stored = Stored::of(&system).await;
    let alice = Identity::fresh("alice");
    let bob = Identity::fresh("bob");
    let mut talker = Device::on(&system, 0, &alice, Codec::Json).await;
    let mut listener = Device::on(&system, 1, &bob, Codec::Json).await;
    let chat_id = talker.direct_chat(&bob.user_id).await;
    listener.update().await;
    listener.confirm_through(1).await;

    // A graceful stop: the client is told when to come back, and what it confirmed before is gone.
    talker.say(chat_id, "before the restart").await;
    let message = listener.message().await;
    listener.confirm_through(message.delivery).await;
    talker.say(chat_id, "unconfirmed").await;
    listener.message().await;
    system.signal("gateway-2", Signal::SIGTERM);
    let (closed, heard) = listener.until_closed().await;
    assert_eq!(closed.close_code(), Some(CloseCode::Restart));
    assert!(
        matches!(heard.last(), Some(ServerFrame::Closing(closing))
            if closing.code == ErrorCode::Unavailable && closing.reconnect && closing.retry_after_ms.is_some()),
        "{heard:?}"
    );
    stored.until(&bob.user_id, bob.client_id, 1).await;
    let mut listener = Device::on(&system, 0, &bob, Codec::Json).await;
    let message = listener.message().await;
    assert_eq!(message.message, "unconfirmed");
    listener.confirm_through(message.delivery).await;
    system.until_ready("gateway-2").await;

    // Either worker may die; the other one goes on with its partitions, whichever this chat is in.
    for worker in ["fanout-worker-1", "fanout-worker-2"] {
        system.signal(worker, Signal::SIGKILL);
        talker.say(chat_id, worker).await;
        assert_eq!(listener.message().await.message, worker);
        system.until_ready(worker).await;
    }
    // A gateway that is killed tells nobody; whoever comes back finds everything.
    talker.say(chat_id, "before the kill").await;
    listener.message().await;
    system.kill_and_wait("gateway-1").await;
    let mut talker = Device::on(&system, 1, &alice, Codec::Json).await;
    let mut listener = Device::on(&system, 0, &bob, Codec::Json).await;
    talker.say(chat_id, "after the kill").await;
    loop {
        let message = listener.message().await;
        if message.message == "after the kill" {
            listener.confirm_through(message.delivery).await;
            break;
        }
    }
    stored.until(&bob.user_id, bob.client_id, 0).await;

    // The inbox workers' part: nobody waits for them, and they come back.
    for worker in ["inbox-worker-1", "inbox-worker-2"] {
        system.kill_and_wait(worker).await;
    }
    talker.say(chat_id, "the end").await;
    assert_eq!(listener.message().await.message, "the end");
    eventually("no partition has anything left", async || {
        let chats = stored.stream("CHATS").await.state.messages;
        if chats == 0 { Ok(()) } else { Err(chats) }
    })
    .await;
}

/// What a gateway still owes when it is asked to stop is soon done, also to workers that have told it directly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_has_delivered_directly_stops_without_an_error() {
    let system = System::shared().await;
    let gateway = system.extra_gateway(&[]).await;
    let (alice, bob) = (Identity::fresh("alice"), Identity::fresh("bob"));
    let mut talker = Device::on(system, 0, &alice, Codec::Json).await;
    let mut listener = Device::at(&gateway.ws, &bob, &bob.token(&system.secret()), Codec::Json).await;
    let chat_id = talker.direct_chat(&bob.user_id).await;
    listener.update().await;
    listener.confirm_through(1).await;
    talker.say(chat_id, "confirmed").await;
    let message = listener.message().await;
    listener.confirm_through(message.delivery).await;
    talker.say(chat_id, "not confirmed").await;
    listener.message().await;

    // With an error after the time for draining, if anything is left then.
    let status = gateway.stop().await;
    assert!(status.success(), "{status}");
    let (closed, _) = listener.until_closed().await;
    assert_eq!(closed.close_code(), Some(CloseCode::Restart));
    let mut listener = Device::on(system, 0, &bob, Codec::Json).await;
    assert_eq!(listener.message().await.message, "not confirmed");
}
