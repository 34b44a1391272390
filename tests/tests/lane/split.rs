//! A gateway on the wrong side of a split sends its clients elsewhere.

use std::time::Duration;

use tidings_protocol::{MessageId, ServerFrame};
use tidings_tests::{Identity, eventually};
use tokio::time::Instant;
use uuid::Uuid;

use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_cut_off_is_sent_to_the_majority() {
    let cluster = Cluster::start().await;
    let _worker = cluster.service("fanout-worker", &[0]).await;
    let majority = cluster.service("gateway", &[1]).await;
    let minority = cluster.service("gateway", &[2]).await;
    let (alice, bob) = (Identity::fresh("alice"), Identity::fresh("bob"));
    let mut at_majority = majority.device(&alice).await;
    let mut at_minority = minority.device(&bob).await;
    let chat_id = at_majority.direct_chat(&bob.user_id).await;
    at_majority.say(chat_id, "before").await;
    assert_eq!(at_minority.message().await.message, "before");

    cluster.cut(2, true);
    let cut = Instant::now();
    let (closed, before) = at_minority.until_closed().await;
    // Ten seconds after the last beacon, which was there up to half a second before the cut; later on a busy machine.
    assert!(cut.elapsed() >= Duration::from_secs(8), "{:?}", cut.elapsed());
    assert_eq!(closed.code, 1012, "{closed:?}");
    let closing = before.iter().find_map(|heard| match heard {
        ServerFrame::Closing(closing) => Some(closing),
        _ => None,
    });
    let closing = closing.expect("it is said before");
    assert!(closing.reconnect);
    assert!(closing.retry_after_ms.is_some(), "{closing:?}");
    assert!(!minority.is_ready().await);
    eventually("nobody is let in", async || {
        match minority.upgrade_status().await {
            Some(503) => Ok(()),
            // Not answered within a second.
            other => Err(other),
        }
    })
    .await;

    // Elsewhere everything goes on, and nobody was sent away.
    let mut bob_again = majority.device(&bob).await;
    assert_eq!(bob_again.message().await.message, "before");
    at_majority.say(chat_id, "meanwhile").await;
    assert_eq!(bob_again.message().await.message, "meanwhile");
    eventually("the majority is ready", async || {
        majority.is_ready().await.then_some(()).ok_or("not ready")
    })
    .await;
    assert_eq!(majority.counter("tidings_cut_off_total").await, 0);

    cluster.cut(2, false);
    eventually("the split is healed", async || {
        minority.is_ready().await.then_some(()).ok_or("not ready")
    })
    .await;
    let mut back = minority.device(&bob).await;
    bob_again.until_closed().await;
    // The node that is back may start an election, in which a publish can be lost: such a send is retried.
    let message_id = MessageId(Uuid::new_v4());
    eventually("alice can send", async || {
        at_majority.say_as(chat_id, message_id, "after").await
    })
    .await;
    let heard = async {
        loop {
            if back.message().await.message == "after" {
                return;
            }
        }
    };
    heard.await;
}
