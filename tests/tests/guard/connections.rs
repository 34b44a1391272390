//! What a connection costs the gateway while it rests, in bytes of its heap.

use futures::{StreamExt as _, stream};
use tidings_protocol::ChatId;
use tidings_tests::{Device, eventually};

use crate::bounds::{HEAP_BYTES_A_CONNECTION, HEAP_BYTES_A_CONNECTION_USED};
use crate::guarded::Guarded;

/// What is made once is made for the first ones. Even, as the next: they talk in pairs.
const WARM: usize = 50;
/// Many enough for tables that grow by doubling to matter little: so few bytes of one for each.
const CONNECTIONS: usize = 400;
/// That do something at once: few enough for the system, and fast enough for the others not to be closed for their silence.
const AT_ONCE: usize = 16;
const MESSAGE_BYTES: usize = 4096;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_at_rest_holds_no_more_than_it_did() {
    let guarded = Guarded::start().await;
    let mut all = connected(&guarded, WARM).await;
    exchange(&mut all).await;
    for (what, used, most) in [
        ("at rest", false, HEAP_BYTES_A_CONNECTION),
        ("at rest again", true, HEAP_BYTES_A_CONNECTION_USED),
    ] {
        // Anew each time: what the others hold is not this round's.
        live(&guarded, all.len()).await;
        let before = guarded.allocations("gateway-1").live_bytes as f64;
        let mut devices = connected(&guarded, CONNECTIONS).await;
        if used {
            exchange(&mut devices).await;
        }
        all.append(&mut devices);
        rests(&guarded, all.len(), before, what, most).await;
    }
}

/// Waits until the gateway has so many sessions, neither more nor fewer.
async fn live(guarded: &Guarded, sessions: usize) {
    eventually(&format!("{sessions} sessions live"), async || {
        let counted = guarded.sessions().await;
        if counted == sessions { Ok(()) } else { Err(counted) }
    })
    .await;
}

async fn connected(guarded: &Guarded, count: usize) -> Vec<Device> {
    let device = |_| Device::fresh(&guarded.system, "guard");
    stream::iter(0..count)
        .map(device)
        .buffered(AT_ONCE)
        .collect()
        .await
}

/// One large message from each to another one, confirmed.
async fn exchange(devices: &mut [Device]) {
    let text = "x".repeat(MESSAGE_BYTES);
    let pairs = stream::iter(devices.chunks_exact_mut(2));
    let talk = pairs.for_each_concurrent(AT_ONCE, async |pair| {
        let [one, other] = pair else {
            unreachable!("it has two")
        };
        let chat_id = one.direct_chat(&other.user_id()).await;
        for device in [&mut *one, &mut *other] {
            let delivery = device.update().await.delivery;
            device.confirm(delivery).await;
        }
        say(one, other, chat_id, &text).await;
        say(other, one, chat_id, &text).await;
    });
    talk.await;
}

async fn say(from: &mut Device, to: &mut Device, chat_id: ChatId, text: &str) {
    from.say(chat_id, text).await;
    let delivery = to.message().await.delivery;
    to.confirm(delivery).await;
}

/// Waits for it, since what was needed on the way there is given back a moment later. A session that has ended holds
/// nothing, and would make the others look cheap: all of them live before it is counted, and after.
async fn rests(guarded: &Guarded, sessions: usize, before: f64, what: &str, most: f64) {
    let each = || (guarded.allocations("gateway-1").live_bytes as f64 - before) / CONNECTIONS as f64;
    eventually(
        &format!("a connection {what} holds at most {most} bytes: see bounds.rs"),
        async || {
            live(guarded, sessions).await;
            let each = each();
            let counted = guarded.sessions().await;
            if each <= most && counted == sessions {
                eprintln!("a connection {what}: {each:.0} bytes");
                Ok(())
            } else {
                Err((each, counted))
            }
        },
    )
    .await;
}
