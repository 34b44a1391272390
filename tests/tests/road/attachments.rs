//! Files: announced to the gateway, uploaded to media, named in a message, and read by those who got it.

use reqwest::StatusCode;
use tidings_protocol::{
    AttachmentId, ChatId, Codec, CreateAttachment, Error, ErrorCode, MessageId, Operation, Reply, SendMessage,
};
use tidings_tests::{Device, Identity, System, sha256};
use uuid::Uuid;

async fn announce(device: &mut Device, content: &[u8]) -> Result<Reply, Error> {
    let id = device.id();
    device
        .request(CreateAttachment {
            id,
            hash: sha256(content).to_string(),
            size: content.len() as u64,
            content_type: "text/plain".to_owned(),
            name: Some("note.txt".to_owned()),
        })
        .await
}

fn http() -> reqwest::Client {
    tidings_service::start::install_crypto_provider();
    reqwest::Client::new()
}

async fn put(system: &System, device: &Device, url: &str, content: &[u8]) -> StatusCode {
    let token = device.identity.token(&system.secret());
    let request = http()
        .put(url)
        .bearer_auth(token)
        .header("Content-Type", "text/plain")
        .body(content.to_vec());
    request.send().await.expect("media answers").status()
}

/// Announces and uploads.
async fn upload(system: &System, device: &mut Device, content: &[u8]) -> AttachmentId {
    let reply = announce(device, content).await.expect("there is room");
    let url = reply.upload_url.expect("it says where to");
    assert!(put(system, device, &url, content).await.is_success());
    reply.attachment_id.expect("it has an id")
}

async fn get(system: &System, device: &Device, id: AttachmentId) -> (StatusCode, Vec<u8>) {
    let media = system.up_file().media.expect("media runs");
    let token = device.identity.token(&system.secret());
    let request = http()
        .get(format!("{media}/v1/attachments/{id}"))
        .bearer_auth(token);
    let response = request.send().await.expect("media answers");
    let status = response.status();
    (
        status,
        response.bytes().await.expect("the body is whole").to_vec(),
    )
}

async fn send(
    device: &mut Device,
    chat_id: ChatId,
    message_id: MessageId,
    attachments: &[AttachmentId],
) -> Result<Reply, Error> {
    let id = device.id();
    device
        .request(SendMessage {
            id,
            chat_id,
            message_id,
            message: String::new(),
            attachments: attachments.to_vec(),
        })
        .await
}

fn message_id() -> MessageId {
    MessageId(Uuid::new_v4())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_got_the_message_can_read_it_and_nobody_else() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let bob = Identity::fresh("bob");
    let mut bobs = [
        Device::on(system, 0, &bob, Codec::Json).await,
        Device::on(system, 1, &Identity::new(&bob.user_id), Codec::Postcard).await,
        Device::on(system, 1, &Identity::new(&bob.user_id), Codec::Json).await,
    ];
    let mut carol = Device::fresh(system, "carol").await;
    let stranger = Device::fresh(system, "stranger").await;
    let chat_id = alice.create_group(&[bobs[0].user_id(), carol.user_id()]).await;

    let content = b"what is in the file";
    let first = announce(&mut alice, content).await.expect("there is room");
    assert_eq!(first.uploaded, Some(false));
    let id = first.attachment_id.expect("it has an id");
    let again = announce(&mut alice, content).await.expect("there is room");
    assert_eq!(again.attachment_id, Some(id), "a retry makes no second one");
    let error = send(&mut alice, chat_id, message_id(), &[id]).await;
    let error = error.expect_err("the bytes are not there");
    assert_eq!(
        (&error.code, error.field.as_deref()),
        (&ErrorCode::AttachmentNotReady, Some("attachments[0]"))
    );
    assert_eq!(upload(system, &mut alice, content).await, id);
    assert_eq!(get(system, &bobs[0], id).await.0, StatusCode::NOT_FOUND);

    let naming = message_id();
    let sent = send(&mut alice, chat_id, naming, &[id])
        .await
        .expect("it is ready");
    for device in bobs.iter_mut().chain([&mut carol]) {
        let got = device.message().await;
        assert_eq!((Some(got.seq), got.message_id), (sent.seq, naming));
        let [file] = &got.attachments[..] else {
            panic!("one file in {got:?}")
        };
        assert_eq!((file.attachment_id, file.size), (id, content.len() as u64));
        assert_eq!(
            (file.hash.clone(), file.name.as_deref()),
            (sha256(content).to_string(), Some("note.txt"))
        );
        assert_eq!(get(system, device, id).await, (StatusCode::OK, content.to_vec()));
    }
    let retried = send(&mut alice, chat_id, naming, &[id])
        .await
        .expect("it is ready");
    assert_eq!((retried.seq, retried.duplicate), (sent.seq, Some(true)));

    // For a stranger it is as if there were none.
    let refused = get(system, &stranger, id).await;
    assert_eq!(
        refused,
        get(system, &stranger, AttachmentId(Uuid::new_v4())).await
    );
    assert_eq!(refused.0, StatusCode::NOT_FOUND);
    let mut stranger = stranger;
    let own = stranger.direct_chat(&carol.user_id()).await;
    let error = send(&mut stranger, own, message_id(), &[id])
        .await
        .expect_err("not the stranger's");
    assert_eq!(
        (&error.code, error.field.as_deref()),
        (&ErrorCode::AttachmentForbidden, Some("attachments[0]"))
    );

    // After leaving too; who joins later reads what comes later.
    let removed = alice.modify(chat_id, &carol.user_id(), Operation::Remove).await;
    removed.expect("alice is an admin");
    assert_eq!(get(system, &carol, id).await.0, StatusCode::OK);
    let dave = Device::fresh(system, "dave").await;
    let added = alice.modify(chat_id, &dave.user_id(), Operation::Add).await;
    added.expect("alice is an admin");
    assert_eq!(get(system, &dave, id).await.0, StatusCode::NOT_FOUND);
    // Whoever got it may pass it on.
    send(&mut bobs[0], chat_id, message_id(), &[id])
        .await
        .expect("bob may read it");
    assert_eq!(get(system, &dave, id).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_or_too_large_is_refused_for_that() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let mut bob = Device::fresh(system, "bob").await;
    let mut stranger = Device::fresh(system, "stranger").await;
    let chat_id = alice.direct_chat(&bob.user_id()).await;
    let id = upload(system, &mut alice, b"here for a while").await;
    send(&mut alice, chat_id, message_id(), &[id])
        .await
        .expect("it is ready");
    assert_eq!(bob.message().await.attachments.len(), 1);

    let database = sqlx::PgPool::connect(&system.up_file().postgres)
        .await
        .expect("Postgres answers");
    sqlx::query("UPDATE attachments SET gone_at = now() WHERE attachment_id = $1")
        .bind(id.0)
        .execute(&database)
        .await
        .expect("the statement is right");
    for (device, expected) in [
        (&mut alice, ErrorCode::AttachmentGone),
        (&mut bob, ErrorCode::AttachmentGone),
    ] {
        let error = send(device, chat_id, message_id(), &[id])
            .await
            .expect_err("it is gone");
        assert_eq!(
            (&error.code, error.field.as_deref()),
            (&expected, Some("attachments[0]"))
        );
        assert_eq!(get(system, device, id).await.0, StatusCode::GONE);
    }
    let own = stranger.direct_chat(&bob.user_id()).await;
    let error = send(&mut stranger, own, message_id(), &[id])
        .await
        .expect_err("it never was the stranger's");
    assert_eq!(error.code, ErrorCode::AttachmentForbidden);
    assert_eq!(get(system, &stranger, id).await.0, StatusCode::NOT_FOUND);

    let request = CreateAttachment {
        id: alice.id(),
        hash: sha256(b"").to_string(),
        size: u64::from(u32::MAX),
        content_type: "text/plain".to_owned(),
        name: None,
    };
    let error = alice.request(request).await.expect_err("it is too large");
    assert_eq!(
        (&error.code, error.field.as_deref()),
        (&ErrorCode::BadRequest, Some("size"))
    );
}
