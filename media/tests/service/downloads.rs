//! GET and HEAD: what is told, and to whom.

use reqwest::Method;
use tidings_metadata::{ModifyParticipants, NewChat};
use tidings_protocol::{AttachmentId, Operation, RequestId};
use uuid::Uuid;

use crate::support::{System, header, some_bytes};

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_conditions_are_kept() {
    let system = System::start().await;
    let media = system.media(&["--cors-origin=https://chat.example.org"]).await;
    let alice = media.person("alice");
    let bytes = some_bytes(4, 1_000_000);
    let path = format!(
        "/v1/attachments/{}",
        alice.upload("image/png", "cat.png", &bytes).await
    );
    let whole = alice.get(&path).await;
    assert_eq!(whole.status(), 200);
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-length", "1000000"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, max-age=31536000, immutable"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("content-disposition", "inline; filename=\"cat.png\""),
    ] {
        assert_eq!(header(&whole, name), value, "{name}");
    }
    let etag = header(&whole, "etag").to_owned();
    assert_eq!(whole.bytes().await.expect("a body"), bytes);

    let head = alice.ask(Method::HEAD, &path).send().await.expect("an answer");
    assert_eq!(
        (head.status().as_u16(), header(&head, "content-length")),
        (200, "1000000")
    );
    assert_eq!(
        (header(&head, "etag"), head.headers().get("content-range")),
        (etag.as_str(), None)
    );

    for (range, condition, status, from, to) in [
        ("bytes=0-0", None, 206, 0, 1),
        ("bytes=999990-", None, 206, 999_990, 1_000_000),
        ("bytes=-7", Some(etag.as_str()), 206, 999_993, 1_000_000),
        ("bytes=0-9", Some("\"other\""), 200, 0, 1_000_000),
        ("bytes=0-9,20-29", None, 200, 0, 1_000_000),
    ] {
        let mut request = alice.ask(Method::GET, &path).header("range", range);
        if let Some(condition) = condition {
            request = request.header("if-range", condition);
        }
        let part = request.send().await.expect("an answer");
        assert_eq!(part.status(), status, "{range}");
        if status == 206 {
            let told = format!("bytes {from}-{}/1000000", to - 1);
            assert_eq!(header(&part, "content-range"), told);
        }
        assert_eq!(part.bytes().await.expect("a body"), bytes[from..to], "{range}");
    }
    let beyond = alice.ask(Method::GET, &path).header("range", "bytes=1000000-");
    let beyond = beyond.send().await.expect("an answer");
    assert_eq!(
        (beyond.status().as_u16(), header(&beyond, "content-range")),
        (416, "bytes */1000000")
    );
    let known = alice.ask(Method::GET, &path).header("if-none-match", &etag);
    let known = known.send().await.expect("an answer");
    assert_eq!(
        (known.status().as_u16(), header(&known, "etag")),
        (304, etag.as_str())
    );

    media.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_saved_and_only_some_may_ask() {
    let system = System::start().await;
    let media = system.media(&["--cors-origin=https://chat.example.org"]).await;
    let alice = media.person("alice");
    let html = alice
        .upload("text/html", "evil.html", b"<script>alert(1)</script>")
        .await;
    let html = alice.get(&format!("/v1/attachments/{html}")).await;
    assert_eq!(header(&html, "content-type"), "text/html");
    assert_eq!(
        header(&html, "content-disposition"),
        "attachment; filename=\"evil.html\""
    );

    let path = format!(
        "/v1/attachments/{}",
        alice.upload("image/png", "cat.png", b"cat").await
    );
    let origin = ("origin", "https://chat.example.org");
    let asked = alice
        .client
        .request(Method::OPTIONS, format!("{}{path}", media.url));
    let asked = asked
        .header(origin.0, origin.1)
        .header("access-control-request-method", "GET");
    let asked = asked.send().await.expect("an answer");
    assert_eq!(
        (
            asked.status().as_u16(),
            header(&asked, "access-control-allow-origin")
        ),
        (204, origin.1)
    );
    assert!(header(&asked, "access-control-allow-headers").contains("Authorization"));
    let page = alice
        .ask(Method::GET, &path)
        .header(origin.0, origin.1)
        .send()
        .await
        .expect("an answer");
    assert!(header(&page, "access-control-expose-headers").contains("Content-Disposition"));
    let other = alice
        .ask(Method::GET, &path)
        .header("origin", "https://evil.example")
        .send()
        .await;
    assert_eq!(
        header(&other.expect("an answer"), "access-control-allow-origin"),
        ""
    );
    media.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_read_it_and_strangers_cannot_tell() {
    let system = System::start().await;
    let media = system.media(&[]).await;
    let (alice, bob, eve) = (media.person("alice"), media.person("bob"), media.person("eve"));
    let id = alice.upload("text/plain", "a.txt", b"for bob").await;
    let path = format!("/v1/attachments/{id}");
    assert_eq!(bob.get(&path).await.status(), 404);

    let chat = system.metadata.create_chat(NewChat {
        creator: alice.user.clone(),
        request_id: RequestId(Uuid::new_v4()),
        others: vec![bob.user.clone()],
        name: Some("two".to_owned()),
    });
    let chat_id = chat.await.expect("the chat is made").chat_id;
    let ids = [AttachmentId(id)];
    let granted = system.metadata.grant_attachments(chat_id, &alice.user, &ids);
    granted.await.expect("it is ready");
    assert_eq!(bob.get(&path).await.bytes().await.expect("a body"), "for bob");
    let leave = ModifyParticipants {
        by: bob.user.clone(),
        request_id: RequestId(Uuid::new_v4()),
        chat_id,
        user: bob.user.clone(),
        operation: Operation::Remove,
    };
    let left = system.metadata.modify_participants(leave).await;
    assert!(left.expect("everybody may leave").done);
    assert_eq!(bob.get(&path).await.status(), 200, "also after having left");

    let nothing = format!("/v1/attachments/{}", Uuid::new_v4());
    for method in [Method::GET, Method::HEAD, Method::PUT] {
        let mut answers = Vec::new();
        for path in [&path, &nothing, "/v1/attachments/no-id"] {
            let answer = eve
                .ask(method.clone(), path)
                .body("x")
                .send()
                .await
                .expect("an answer");
            let mut headers = answer.headers().clone();
            headers.remove("date");
            answers.push((answer.status(), headers, answer.bytes().await.expect("a body")));
        }
        assert_eq!(answers[0].0, 404, "{method}");
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "{method}: {answers:?}"
        );
    }
    media.stop().await;
}
