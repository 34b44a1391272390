//! Instances register in a real bucket, see each other, and notice when they cannot renew.

mod support;

use std::time::Duration;

use support::System;
use tidings_service::{Context, INSTANCE_AGE_MAX, LivingWatch, Registration};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

async fn attach(system: &System, service: &'static str) -> Context {
    Context::attach(service, &system.nats.url(), system.postgres.url())
        .await
        .expect("the system is set up")
}

async fn register(context: &Context) -> Registration {
    let address = Some("127.0.0.1:1".to_owned());
    Registration::start(context, address, context.stopping.clone())
        .await
        .expect("the bucket takes the key")
}

/// Waits until as many instances are listed.
async fn living(watch: &LivingWatch, count: usize) {
    let mut list = watch.subscribe();
    let wait = list.wait_for(|living| living.instances.len() == count);
    timeout(PATIENCE, wait)
        .await
        .expect("the list becomes so")
        .expect("the watch goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_see_each_other_come_and_go() {
    let system = System::start().await;
    let gateway = attach(&system, "gateway").await;
    let workers = LivingWatch::start(&gateway, "fanout-worker")
        .await
        .expect("the bucket is there");
    assert!(workers.now().instances.is_empty());

    let (first, second) = (
        attach(&system, "fanout-worker").await,
        attach(&system, "fanout-worker").await,
    );
    register(&gateway).await;
    register(&first).await;
    let asked = Instant::now();
    let list = workers.after(asked).await.expect("NATS answers");
    assert!(list.as_of >= asked, "a list from after the question");
    let instance = list
        .instances
        .get(&first.boot_id)
        .expect("who registered before the question is in it");
    assert_eq!(
        (instance.service.as_str(), instance.address.as_deref()),
        ("fanout-worker", Some("127.0.0.1:1"))
    );
    assert_eq!(list.instances.len(), 1, "gateways are no workers");

    register(&second).await;
    living(&workers, 2).await;
    first.stopping.cancel();
    living(&workers, 1).await;
    assert!(workers.now().instances.contains_key(&second.boot_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_renew_notices_it_before_the_others_do() {
    let mut system = System::start().await;
    let worker = attach(&system, "fanout-worker").await;
    let registration = register(&worker).await;
    assert!(worker.is_ready() && registration.is_renewed_within(INSTANCE_AGE_MAX));
    let before = registration.renewed();
    let renewed = async {
        while registration.renewed() == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, renewed).await.expect("the key is renewed");

    system.nats.kill().await;
    let limit = Duration::from_secs(6);
    timeout(PATIENCE, registration.unrenewed_for(limit))
        .await
        .expect("no renewal succeeds");
    assert!(!registration.is_renewed_within(limit) && registration.is_renewed_within(INSTANCE_AGE_MAX));
    // It is said at the end of the try that finds out.
    let unready = async {
        while worker.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, unready)
        .await
        .expect("the condition `instance` does not hold");
    system.nats.start().await.expect("nats-server starts again");
    let ready = async {
        while !worker.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, ready).await.expect("the key is renewed again");
}
