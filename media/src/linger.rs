//! What becomes of a body that nobody wants.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::{HeaderMap, header};
use futures::StreamExt as _;
use tidings_service::BaseContext;

/// How long it is read and thrown away. A socket that is closed while bytes come tells the client so at once, and the
/// client's system may forget the answer over it; by then the client has read it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lets the client finish reading the answer.
pub(crate) fn linger(context: &BaseContext, headers: &HeaderMap, body: BodyDataStream) {
    // Whoever waits to be told to go on has sent nothing, and must not be told.
    if !headers.contains_key(header::EXPECT) {
        context.tasks.spawn(read_on(context.clone(), body));
    }
}

/// The same, for a task.
pub(crate) async fn read_on(context: BaseContext, mut body: BodyDataStream) {
    let read = async { while let Some(Ok(_)) = body.next().await {} };
    let read = tokio::time::timeout(PATIENCE, read);
    let _ = context.stopping.run_until_cancelled(read).await;
}
