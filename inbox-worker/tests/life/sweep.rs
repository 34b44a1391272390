//! What is left of a removed client is deleted, and what is the next one's is not.

use tidings_nats::{Inbox, Lost, inbox_stream};
use tidings_protocol::{ClientId, Timestamp, TrimReason};
use uuid::Uuid;

use crate::support::{System, TIMEOUT, chat, until, user};

impl System {
    async fn mark(&self, inbox: Inbox) {
        let alice = user("alice");
        let lost = Lost {
            reason: TrimReason::Full,
            missed: Some(1),
            since: Timestamp(0),
            until: Timestamp(0),
            chats: vec![chat(1)],
        };
        let (shard, subject) = (self.shard(&alice), self.subject(&alice, inbox));
        let marked = self.context.bus.mark_lost(shard, &subject, &lost, TIMEOUT).await;
        marked.expect("the mark is stored");
    }
}

#[tokio::test]
async fn a_removed_heir_takes_along_what_it_inherited_and_no_more() {
    let system = System::start().await;
    let (alice, heir) = (user("alice"), ClientId(Uuid::new_v4()));
    assert!(system.register(&alice, heir).await.heir);
    system.make_durable(&alice, heir).await;
    for inbox in [Inbox::First, Inbox::Client(heir)] {
        system.store(&alice, inbox, chat(1), Timestamp(0)).await;
        system.mark(inbox).await;
    }
    let stream = inbox_stream(system.shard(&alice));
    let until_here = system.context.bus.last_sequence(&stream, TIMEOUT).await;
    let until_here = until_here.expect("the stream answers");
    let removed = system
        .context
        .metadata
        .remove_client(&alice, heir, Some(until_here))
        .await;
    assert!(removed.expect("it is alice's"));
    // Alice has no client now: this is for her next one.
    let next = system.store(&alice, Inbox::First, chat(1), Timestamp(0)).await;
    // A worker that did not know yet.
    system
        .store(&alice, Inbox::Client(heir), chat(1), Timestamp(0))
        .await;

    // Whoever removed it is gone; two find the work.
    let workers = [system.worker(&[]).await, system.worker(&[]).await];
    until("its inbox is empty and its durable gone", async || {
        let entries = system.entries(&alice, Inbox::Client(heir)).await;
        let marks = system.marks(&alice, Inbox::Client(heir)).await;
        let empty = entries.is_empty() && marks.is_empty();
        (empty && !system.has_durable(&alice, heir).await).then_some(())
    })
    .await;
    until("what it inherited is gone", async || {
        let (entries, marks) = (
            system.entries(&alice, Inbox::First).await,
            system.marks(&alice, Inbox::First).await,
        );
        (entries == [next] && marks.is_empty()).then_some(())
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
}
