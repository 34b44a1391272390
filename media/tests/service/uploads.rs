//! POST and PUT.

use reqwest::{Body, Method};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::support::{System, code, hash, header, json_of, some_bytes, token, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uploaded_is_stored_once() {
    let system = System::start().await;
    let media = system.media(&[]).await;
    let alice = media.person("alice");
    let bytes = some_bytes(1, 3_000_000);
    let path = format!("/v1/attachments?hash={}&name=a.bin", hash(&bytes));
    let answer = alice
        .ask(Method::POST, &path)
        .body(bytes.clone())
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 201);
    assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
    let answer = json_of(answer).await;
    let id = answer["attachmentId"].clone();
    let expected = json!({
        "attachmentId": id, "hash": hash(&bytes).to_string(), "size": 3_000_000,
        "contentType": "application/octet-stream", "name": "a.bin", "uploaded": true,
    });
    assert_eq!(answer, expected);

    let again = alice
        .ask(Method::POST, &path)
        .body(bytes.clone())
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (
            again.status().as_u16(),
            json_of(again).await["attachmentId"].clone()
        ),
        (201, id)
    );
    let other = alice.upload("text/plain", "b.bin", &bytes).await;
    let put = alice.ask(Method::PUT, &format!("/v1/attachments/{other}"));
    let put = put.body(bytes.clone()).send().await.expect("an answer");
    assert_eq!(put.status(), 200, "it is there already");
    assert_eq!(system.stored().await.len(), 1);

    let slot = alice.slot(&system.metadata, b"announced").await;
    let path = format!("/v1/attachments/{slot}");
    assert_eq!(code(alice.get(&path).await).await, "attachment_not_ready");
    let wrong = alice
        .ask(Method::PUT, &path)
        .body("short")
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (wrong.status().as_u16(), code(wrong).await.as_str()),
        (400, "bad_request")
    );
    let put = alice
        .ask(Method::PUT, &path)
        .body("announced")
        .send()
        .await
        .expect("an answer");
    assert_eq!(put.status(), 201);
    assert_eq!(alice.get(&path).await.bytes().await.expect("a body"), "announced");

    let empty = alice.upload("text/plain", "empty", b"").await;
    let empty = alice.get(&format!("/v1/attachments/{empty}")).await;
    assert_eq!(
        (empty.status().as_u16(), header(&empty, "content-length")),
        (200, "0")
    );
    media.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_and_leaves_nothing() {
    let system = System::start().await;
    let media = system.media(&["--attachment-bytes-max=5MiB"]).await;
    let alice = media.person("alice");
    let bytes = some_bytes(2, 2_000_000);
    let (right, other) = (hash(&bytes), hash(b"other"));
    let post = |query: String| alice.ask(Method::POST, &format!("/v1/attachments{query}"));
    let answer = post(format!("?hash={other}"))
        .body(bytes.clone())
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), code(answer).await.as_str()),
        (422, "hash_mismatch")
    );
    system.nothing_is_left().await;

    for (query, field) in [
        (String::new(), "hash"),
        ("?hash=zz".to_owned(), "hash"),
        (format!("?hash={right}&name="), "name"),
    ] {
        let answer = post(query.clone())
            .body(bytes.clone())
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 400, "{query}");
        assert_eq!(json_of(answer).await["error"]["field"], field, "{query}");
    }
    let typed = post(format!("?hash={right}")).header("content-type", "nothing");
    assert_eq!(typed.body("x").send().await.expect("an answer").status(), 400);
    let stream = futures::stream::iter([Ok::<_, std::io::Error>("x")]);
    let chunked = post(format!("?hash={right}")).body(Body::wrap_stream(stream));
    assert_eq!(chunked.send().await.expect("an answer").status(), 411);
    let large = post(format!("?hash={right}")).body(vec![0; (5 << 20) + 1]);
    assert_eq!(large.send().await.expect("an answer").status(), 413);

    let nowhere = alice.ask(Method::PUT, &format!("/v1/attachments/{}", Uuid::new_v4()));
    assert_eq!(nowhere.body("x").send().await.expect("an answer").status(), 404);
    assert_eq!(alice.get("/v1/nothing").await.status(), 404);
    let method = alice
        .ask(Method::DELETE, "/v1/attachments")
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (
            method.status().as_u16(),
            header(&method, "allow").contains("POST")
        ),
        (405, true)
    );
    system.nothing_is_left().await;
    media.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_those_of_the_gateway() {
    let system = System::start().await;
    let media = system.media(&[]).await;
    let mut alice = media.person("alice");
    let path = format!("/v1/attachments/{}", Uuid::new_v4());
    system
        .metadata
        .suspend_user(&alice.user)
        .await
        .expect("Postgres answers");
    let suspended = alice.get(&path).await;
    assert_eq!(
        (suspended.status().as_u16(), code(suspended).await.as_str()),
        (403, "suspended")
    );
    system
        .metadata
        .resume_user(&alice.user)
        .await
        .expect("Postgres answers");
    assert_eq!(alice.get(&path).await.status(), 404);
    for (claims, expected) in [
        (
            json!({ "sub": "alice", "client": Uuid::new_v4(), "exp": 1 }),
            "token_expired",
        ),
        (
            json!({ "sub": "alice", "exp": 4_102_444_800_u64 }),
            "unauthorized",
        ),
    ] {
        alice.token = token(&claims);
        let answer = alice.get(&path).await;
        assert_eq!(
            (answer.status().as_u16(), header(&answer, "www-authenticate")),
            (401, "Bearer")
        );
        assert_eq!(code(answer).await, expected);
    }
    let nobody = alice
        .client
        .get(format!("{}{path}", media.url))
        .send()
        .await
        .expect("an answer");
    assert_eq!(code(nobody).await, "unauthorized");
    media.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_nothing() {
    let system = System::start().await;
    let media = system.media(&[]).await;
    let alice = media.person("alice");
    let bytes = some_bytes(3, 4_000_000);
    let slot = alice.slot(&system.metadata, &bytes).await;
    let mut stream = TcpStream::connect(media.url.trim_start_matches("http://"))
        .await
        .expect("it listens");
    let head = format!(
        "PUT /v1/attachments/{slot} HTTP/1.1\r\nHost: media\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        alice.token,
        bytes.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it is read");
    stream.write_all(&bytes[..2_000_000]).await.expect("it is read");
    until("the upload is there", async || {
        (!system.stored().await.is_empty()).then_some(())
    })
    .await;
    drop(stream);
    system.nothing_is_left().await;
    media.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_store_is_not_served_from() {
    let system = System::start().await;
    let media = system.media(&[]).await;
    let alice = media.person("alice");
    alice.upload("text/plain", "a", b"a").await;
    let folder = TempDir::new().expect("a folder");
    let lost = system.media_on(folder.path(), &[]).await;
    let reason = until("it has looked", async || {
        let state = lost.context.conditions.states().remove("blob-store")?;
        state.reason.filter(|reason| reason != "not known yet")
    })
    .await;
    assert!(reason.contains("is empty"), "{reason}");
    let answer = lost
        .person("alice")
        .get(&format!("/v1/attachments/{}", Uuid::new_v4()))
        .await;
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "retry-after")),
        (503, "1")
    );
    lost.stop().await;
    media.stop().await;
}
