//! tus 1.0, request by request.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Method, Response};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::support::{Person, System, code, hash, header, some_bytes, until};

const PART: &str = "application/offset+octet-stream";

/// POST, and where the upload goes on.
async fn create(alice: &Person, bytes: &[u8]) -> String {
    let metadata = format!(
        "hash {},filetype {},filename {}",
        BASE64_STANDARD.encode(hash(bytes).to_string()),
        BASE64_STANDARD.encode("text/plain"),
        BASE64_STANDARD.encode("Zoë.txt"),
    );
    let request = alice.tus(Method::POST, "/v1/uploads");
    let request = request
        .header("upload-length", bytes.len())
        .header("upload-metadata", metadata);
    let answer = request.send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "upload-offset")),
        (201, "0")
    );
    assert!(header(&answer, "upload-expires").ends_with(" GMT"));
    header(&answer, "location").to_owned()
}

async fn patch(alice: &Person, path: &str, offset: usize, bytes: &[u8]) -> Response {
    let request = alice.tus(Method::PATCH, path).header("content-type", PART);
    let request = request.header("upload-offset", offset).body(bytes.to_vec());
    request.send().await.expect("an answer")
}

async fn offset(alice: &Person, path: &str) -> usize {
    let answer = alice.tus(Method::HEAD, path).send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "cache-control")),
        (200, "no-store")
    );
    header(&answer, "upload-offset").parse().expect("a number")
}

fn download(path: &str) -> String {
    path.replace("/v1/uploads/", "/v1/attachments/")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_comes_in_parts() {
    let system = System::start().await;
    let media = system.media(&[]).await;
    let alice = media.person("alice");
    let options = alice
        .client
        .request(Method::OPTIONS, format!("{}/v1/uploads", media.url));
    let options = options.send().await.expect("an answer");
    for (name, value) in [
        ("tus-version", "1.0.0"),
        (
            "tus-extension",
            "creation,creation-with-upload,expiration,termination,checksum",
        ),
        ("tus-max-size", "1073741824"),
        ("tus-checksum-algorithm", "sha1,sha256"),
    ] {
        assert_eq!(header(&options, name), value, "{name}");
    }
    let old = alice
        .ask(Method::POST, "/v1/uploads")
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (old.status().as_u16(), header(&old, "tus-version")),
        (412, "1.0.0")
    );

    let bytes = some_bytes(5, 1_000_000);
    let path = create(&alice, &bytes).await;
    let first = patch(&alice, &path, 0, &bytes[..400_000]).await;
    assert_eq!(
        (first.status().as_u16(), header(&first, "upload-offset")),
        (204, "400000")
    );
    let wrong = patch(&alice, &path, 0, &bytes[..10]).await;
    assert_eq!(
        (wrong.status().as_u16(), header(&wrong, "upload-offset")),
        (409, "400000")
    );
    let untyped = alice
        .tus(Method::PATCH, &path)
        .header("upload-offset", 400_000)
        .body("x");
    assert_eq!(untyped.send().await.expect("an answer").status(), 415);
    assert_eq!(
        patch(&alice, &path, 400_000, &vec![0; 600_001]).await.status(),
        413
    );

    let checked = |algorithm: &'static str, of: Vec<u8>, part: Vec<u8>| {
        let digest = match algorithm {
            "sha1" => &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            _ => &ring::digest::SHA256,
        };
        let checksum = BASE64_STANDARD.encode(ring::digest::digest(digest, &of));
        let request = alice.tus(Method::PATCH, &path).header("content-type", PART);
        let request = request.header("upload-checksum", format!("{algorithm} {checksum}"));
        async move {
            request
                .header("upload-offset", 400_000)
                .body(part)
                .send()
                .await
                .expect("an answer")
        }
    };
    let part = bytes[400_000..600_000].to_vec();
    let broken = checked("sha256", b"other".to_vec(), part.clone()).await;
    assert_eq!(
        (broken.status().as_u16(), code(broken).await.as_str()),
        (460, "hash_mismatch")
    );
    assert_eq!(offset(&alice, &path).await, 400_000, "it was not taken");
    assert_eq!(checked("sha1", part.clone(), part.clone()).await.status(), 204);
    let head = alice.tus(Method::HEAD, &path).send().await.expect("an answer");
    assert_eq!(
        (header(&head, "upload-offset"), header(&head, "upload-length")),
        ("600000", "1000000")
    );
    assert!(header(&head, "upload-metadata").contains(&BASE64_STANDARD.encode("Zoë.txt")));
    assert_eq!(
        media
            .person("bob")
            .tus(Method::HEAD, &path)
            .send()
            .await
            .expect("an answer")
            .status(),
        404
    );
    let last = patch(&alice, &path, 600_000, &bytes[600_000..]).await;
    assert_eq!(
        (last.status().as_u16(), header(&last, "upload-offset")),
        (204, "1000000")
    );
    let whole = alice.get(&download(&path)).await;
    assert!(header(&whole, "content-disposition").ends_with("filename*=UTF-8''Zo%C3%AB.txt"));
    assert_eq!(whole.bytes().await.expect("a body"), bytes);
    media.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_ends_or_begins_with_its_creation() {
    let system = System::start().await;
    let media = system.media(&[]).await;
    let alice = media.person("alice");
    let metadata = |bytes: &[u8]| format!("hash {}", BASE64_STANDARD.encode(hash(bytes).to_string()));
    let request = alice.tus(Method::POST, "/v1/uploads").header("upload-length", 5);
    let request = request
        .header("upload-metadata", metadata(b"hello"))
        .header("content-type", PART);
    let answer = request.body("hello").send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "upload-offset")),
        (201, "5")
    );
    let path = header(&answer, "location").to_owned();
    assert_eq!(
        alice.get(&download(&path)).await.bytes().await.expect("a body"),
        "hello"
    );

    let slot = alice.slot(&system.metadata, b"announced").await;
    let path = format!("/v1/uploads/{slot}");
    assert_eq!(patch(&alice, &path, 0, b"announced").await.status(), 204);
    assert_eq!(patch(&alice, &path, 9, b"").await.status(), 204);
    assert_eq!(alice.get(&download(&path)).await.status(), 200);

    let wrong = alice.slot(&system.metadata, b"right").await;
    let answer = patch(&alice, &format!("/v1/uploads/{wrong}"), 0, b"wrong").await;
    assert_eq!(
        (answer.status().as_u16(), code(answer).await.as_str()),
        (422, "hash_mismatch")
    );
    assert_eq!(offset(&alice, &format!("/v1/uploads/{wrong}")).await, 0);

    let bytes = some_bytes(6, 100_000);
    let path = create(&alice, &bytes).await;
    assert_eq!(patch(&alice, &path, 0, &bytes[..50_000]).await.status(), 204);
    let before = system.stored().await.len();
    let ended = alice.tus(Method::DELETE, &path).send().await.expect("an answer");
    assert_eq!(ended.status(), 204);
    assert_eq!(system.stored().await.len(), before - 1);
    let nowhere = format!("/v1/uploads/{}", Uuid::new_v4());
    assert_eq!(
        alice
            .tus(Method::DELETE, &nowhere)
            .send()
            .await
            .expect("an answer")
            .status(),
        404
    );
    media.stop().await;
}

/// Sends a head and a part of the body it announces, and leaves the connection open.
async fn half_a_patch(alice: &Person, path: &str, at: usize, bytes: &[u8], sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(alice.url.trim_start_matches("http://"))
        .await
        .expect("it listens");
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: media\r\nAuthorization: Bearer {}\r\nTus-Resumable: 1.0.0\r\n\
         Content-Type: {PART}\r\nUpload-Offset: {at}\r\nContent-Length: {}\r\n\r\n",
        alice.token,
        bytes.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it is read");
    stream.write_all(&bytes[..sent]).await.expect("it is read");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_whatever_happens() {
    let system = System::start().await;
    let media = system.media(&[]).await;
    let mut alice = media.person("alice");
    let bytes = some_bytes(7, 3_000_000);

    // The connection is cut.
    let path = create(&alice, &bytes).await;
    assert_eq!(patch(&alice, &path, 0, &bytes[..400_000]).await.status(), 204);
    drop(half_a_patch(&alice, &path, 400_000, &bytes[400_000..], 600_000).await);
    // A question may overtake the request that was cut, which has its turn all the same.
    let cut_at = until("what was sent before the cut is taken", async || {
        let at = offset(&alice, &path).await;
        (at > 400_000).then_some(at)
    })
    .await;
    assert!((400_000..=1_000_000).contains(&cut_at), "{cut_at}");

    // The client comes back before the server knows that it was gone: it hangs, and the newer request wins.
    let second = some_bytes(8, 3_000_000);
    let hanging_path = create(&alice, &second).await;
    let hanging = half_a_patch(&alice, &hanging_path, 0, &second, 1_500_000).await;
    until("the first request is read", async || {
        (system.stored().await.len() == 2).then_some(())
    })
    .await;
    let at = offset(&alice, &hanging_path).await;
    assert!(at <= 1_500_000);
    assert_eq!(
        patch(&alice, &hanging_path, at, &second[at..]).await.status(),
        204
    );
    drop(hanging);
    assert_eq!(
        alice
            .get(&download(&hanging_path))
            .await
            .bytes()
            .await
            .expect("a body"),
        second
    );

    // The service is restarted.
    media.stop().await;
    let media = system.media(&[]).await;
    alice.url.clone_from(&media.url);
    assert_eq!(offset(&alice, &path).await, cut_at);
    assert_eq!(patch(&alice, &path, cut_at, &bytes[cut_at..]).await.status(), 204);
    assert_eq!(
        alice.get(&download(&path)).await.bytes().await.expect("a body"),
        bytes
    );
    media.stop().await;
}
