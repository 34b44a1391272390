//! A call that is given up at any moment leaves no transaction open behind it.

use std::pin::pin;

use futures::poll;

use crate::test_database::{TestDatabase, new_chat};

/// Sessions that are in a transaction and do nothing.
const OPEN: &str = "SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND state LIKE 'idle in transaction%'";

/// Looks at a call so often and drops it, unless it has ended by then.
async fn given_up_after(looks: u32, call: impl Future) -> bool {
    let mut call = pin!(call);
    for _ in 0..looks {
        if poll!(call.as_mut()).is_ready() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

#[tokio::test]
async fn whatever_is_given_up_half_way_is_rolled_back() {
    let database = TestDatabase::new().await;
    database.group("erin", &["frank"]).await;
    let mut given_up = 0;
    // From before the beginning to behind the end of a call that takes a millisecond or two.
    for looks in (1..1_000).step_by(3) {
        let new = new_chat("alice", &["bob"], Some(&looks.to_string()));
        if given_up_after(looks, database.metadata.create_chat(new)).await {
            given_up += 1;
            // The next call would take the same connection, and end what is open there.
            database.until(OPEN, 0).await;
        }
    }
    assert!(given_up > 0, "nothing was given up");
    // What comes next is seen by others at once.
    let chat_id = database.group("carol", &["bob", "dave"]).await;
    assert!(!database.participants(chat_id).await.is_empty());
}
