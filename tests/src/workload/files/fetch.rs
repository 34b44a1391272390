//! Somebody asks for a file.

use std::sync::Arc;

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use reqwest::StatusCode;
use tidings_protocol::Attachment;
use tokio::time::sleep;

use super::RETRY;
use crate::history::{ConnectionRecorder, Fetch, RecordedConnection};
use crate::sha256::sha256;
use crate::token::Identity;
use crate::workload::Shared;

/// Whoever was told of a file asks for it, once for each of their devices.
pub(in crate::workload) fn fetch(
    shared: &Arc<Shared>,
    identity: &Identity,
    recorder: &ConnectionRecorder,
    attachment: &Attachment,
) {
    let files = &shared.files;
    let new = files
        .asked
        .lock()
        .insert((identity.client_id, attachment.attachment_id));
    if !new {
        return;
    }
    files.remember(&identity.user_id, attachment);
    let work = until_known(
        Arc::clone(shared),
        identity.clone(),
        recorder.clone(),
        attachment.clone(),
    );
    files.fetches.spawn(work);
}

/// Somebody who was told of nothing asks for it as well.
pub(super) fn probe(shared: &Arc<Shared>, identity: Identity, attachment: Attachment) {
    let recorder = shared.recorder.connection(RecordedConnection {
        device: format!("{}.probe", identity.user_id),
        user_id: identity.user_id.clone(),
        client_id: identity.client_id,
        number: 0,
    });
    let work = until_known(Arc::clone(shared), identity, recorder, attachment);
    shared.files.fetches.spawn(work);
}

async fn until_known(
    shared: Arc<Shared>,
    identity: Identity,
    recorder: ConnectionRecorder,
    attachment: Attachment,
) {
    let files = &shared.files;
    let mut attempts = 0;
    let mut last = "nobody had time for it".to_owned();
    let trying = async {
        loop {
            let permit = files.at_once.acquire().await.expect("it is never closed");
            match ask(&shared, &identity, &attachment).await {
                Ok(outcome) => return outcome,
                Err(reason) => last = reason,
            }
            drop(permit);
            attempts += 1;
            sleep(RETRY.delay(attempts, rand::random())).await;
        }
    };
    let outcome = match files.give_up.run_until_cancelled(trying).await {
        Some(outcome) => outcome,
        None => Fetch::GaveUp(last),
    };
    recorder.fetched(attachment.attachment_id, outcome);
}

/// Asks once. The error is a reason to ask again.
async fn ask(shared: &Shared, identity: &Identity, attachment: &Attachment) -> Result<Fetch, String> {
    let media = shared.targets.media.choose(&mut rand::rng());
    let media = media.expect("files are sent where there is somewhere to put them");
    let url = format!("{media}/v1/attachments/{}", attachment.attachment_id);
    let token = identity.token(&shared.targets.secret);
    // Some read it in two pieces.
    let cut = rand::rng().random_range(0..=attachment.size * 2);
    let pieces = if cut > 0 && cut < attachment.size {
        vec![format!("bytes=0-{}", cut - 1), format!("bytes={cut}-")]
    } else {
        vec![String::new()]
    };
    let mut whole = Vec::new();
    for range in pieces {
        let mut request = shared.files.http.get(&url).bearer_auth(&token);
        if !range.is_empty() {
            request = request.header("range", range);
        }
        let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(status.to_string());
            }
            status => return Ok(Fetch::Refused(status.as_u16())),
        }
        let bytes = answer.bytes().await.map_err(|error| format!("{error:?}"))?;
        whole.extend_from_slice(&bytes);
    }
    if whole.len() as u64 != attachment.size {
        return Ok(Fetch::Wrong(format!(
            "{} bytes of {}",
            whole.len(),
            attachment.size
        )));
    }
    if sha256(&whole).to_string() != attachment.hash {
        return Ok(Fetch::Wrong("another hash".to_owned()));
    }
    Ok(Fetch::Whole)
}
