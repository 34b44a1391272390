//! JetStream's store is lost, and the database is kept: whoever replaced a disk, or restored one of the two.

use tidings_protocol::Codec;
use tidings_tests::{Device, Identity, System, SystemOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chats_and_clients_outlive_the_store() {
    let options = SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    };
    let system = System::start(&options).await;
    let (alice, bob) = (Identity::fresh("alice"), Identity::fresh("bob"));
    let mut first = Device::on(&system, 0, &alice, Codec::Json).await;
    let mut second = Device::on(&system, 0, &bob, Codec::Json).await;
    let chat_id = first.create_group(&[second.user_id()]).await;
    let before = first.say(chat_id, "before").await;
    assert_eq!(second.message().await.message, "before");
    first.close().await;
    second.close().await;

    let system = system
        .start_again(&options, |dir| {
            std::fs::remove_dir_all(dir.join("nats")).expect("the store is there");
        })
        .await;
    // Says hello, and is caught up: clients that are known are waited for by their registrations' sequences.
    let mut first = Device::on(&system, 0, &alice, Codec::Json).await;
    let mut second = Device::on(&system, 0, &bob, Codec::Json).await;
    let after = first.say(chat_id, "after").await;
    assert!(after.seq > before.seq, "{after:?} comes after {before:?}");
    assert_eq!(second.message().await.message, "after");
}
