//! Who was away for long is idle; who is connected is not.

use tidings_metadata::{ClientState, OutboxKey};
use tidings_nats::{Inbox, SESSIONS, SessionKey};
use tidings_protocol::{ClientId, Registration, Timestamp};
use tidings_service::Registration as Instance;
use uuid::Uuid;

use crate::support::{System, TIMEOUT, chat, until, user};

impl System {
    async fn state(&self, client_id: ClientId) -> (ClientState, Timestamp) {
        let record = self.context.metadata.client(client_id).await;
        let record = record.expect("Postgres answers").expect("it registered");
        (record.state, record.last_seen_at)
    }

    /// Writes that a client is connected to a gateway.
    async fn connect(&self, client_id: ClientId, gateway: String) {
        let key = SessionKey {
            gateway,
            connection: 1,
            user_id: user("alice"),
            since: Timestamp(0),
        };
        let subject = format!("$KV.{SESSIONS}.{client_id}");
        let bus = &self.context.bus;
        let written = bus
            .publish_with_id(subject, &Uuid::new_v4().to_string(), key.encode(), TIMEOUT)
            .await;
        written.expect("SESSIONS takes it");
    }
}

#[tokio::test]
async fn who_was_away_for_long_is_idle_and_who_is_connected_is_not() {
    let system = System::start().await;
    let alice = user("alice");
    let [heir, connected, of_dead_gateway] = [(); 3].map(|()| ClientId(Uuid::new_v4()));
    for client_id in [heir, connected, of_dead_gateway] {
        system.register(&alice, client_id).await;
        system.make_durable(&alice, client_id).await;
    }
    // Its gateway has not written for long that it is connected.
    let gateway = system.attach("gateway").await;
    let registered = Instance::start(&gateway, None, gateway.ended.clone()).await;
    registered.expect("INSTANCES takes it");
    system.connect(connected, gateway.boot_id.to_string()).await;
    system
        .connect(of_dead_gateway, "0123456789abcdef0123456789abcdef".to_owned())
        .await;
    for inbox in [
        Inbox::First,
        Inbox::Client(heir),
        Inbox::Client(connected),
        Inbox::Client(of_dead_gateway),
    ] {
        system.store(&alice, inbox, chat(1), Timestamp(0)).await;
    }

    let worker = system.worker(&["--idle-after", "1s"]).await;
    for client_id in [heir, of_dead_gateway] {
        until("it is idle", async || {
            (system.state(client_id).await.0 == ClientState::Idle).then_some(())
        })
        .await;
        until("its inbox is empty and its durable gone", async || {
            let entries = system.entries(&alice, Inbox::Client(client_id)).await;
            (entries.is_empty() && !system.has_durable(&alice, client_id).await).then_some(())
        })
        .await;
    }
    until("what the heir inherited is gone with it", async || {
        system
            .entries(&alice, Inbox::First)
            .await
            .is_empty()
            .then_some(())
    })
    .await;
    until("everybody is told", async || {
        let unsent = system
            .context
            .metadata
            .unsent_rows(&OutboxKey::User(alice.clone()))
            .await;
        (unsent.expect("Postgres answers") == 0).then_some(())
    })
    .await;
    let (_, seen) = system.state(connected).await;
    until("the connected one is seen", async || {
        let (state, again) = system.state(connected).await;
        assert_eq!(state, ClientState::Active);
        (again.0 > seen.0 + 1_500).then_some(())
    })
    .await;
    assert_eq!(system.entries(&alice, Inbox::Client(connected)).await.len(), 1);
    let back = system.register(&alice, heir).await;
    assert_eq!((back.registration, back.heir), (Registration::Reactivated, false));
    assert!(back.away_since.is_some());
    worker.stop().await;
    gateway.stopping.cancel();
}
