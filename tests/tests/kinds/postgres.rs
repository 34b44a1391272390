//! A Postgres that falls silent, as one that is stopped or behind a cable that was pulled: it refuses nothing, and
//! answers nothing.

use tidings_client::connection::{Connection, RequestFailed};
use tidings_protocol::{Codec, ErrorCode, Hello, MessageId};
use tidings_tests::proxy::{Mode, Proxy};
use tidings_tests::{Device, Identity, PATIENCE, System, eventually};
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use crate::support::person;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_postgres_is_unavailable_and_known_chats_go_on() {
    let system = System::shared().await;
    let mut url = Url::parse(&system.up_file().postgres).expect("up.json has a good URL");
    let port = url.port().expect("it names a port");
    let server = format!("127.0.0.1:{port}").parse().expect("an address");
    let proxy = Proxy::start(server).await.expect("loopback has free ports");
    url.set_port(Some(proxy.address().port()))
        .expect("a URL with a host has a port");
    let gateway = system
        .extra_gateway(&[("TIDINGS_POSTGRES_URL", url.as_str())])
        .await;

    let secret = system.secret();
    let alice = person("alice", false);
    let mut alice = Device::at(&gateway.ws, &alice, &alice.token(&secret), Codec::Json).await;
    let mut bob = Device::of(system, &person("bob", false)).await;
    let known = alice.direct_chat(&bob.user_id()).await;
    let unknown = alice.create_group(&[bob.user_id()]).await;
    // The gateway has long heard that both are new: heard after the message, it would have to look the known one up again.
    while bob.update().await.chat_id != unknown {}
    alice.say(known, "before").await;
    bob.message().await;

    proxy.set(Mode::Stall);
    alice.say(known, "meanwhile").await;
    assert_eq!(bob.message().await.message, "meanwhile");
    let message_id = MessageId(Uuid::new_v4());
    let send = alice.say_as(unknown, message_id, "patience");
    let hello = timeout(PATIENCE, hello(&gateway.ws, &secret));
    let (sent, refused) = tokio::join!(send, hello);
    assert_eq!(
        sent.expect_err("nobody knows the chat").code,
        ErrorCode::Unavailable
    );
    let refused = refused.expect("hello is answered");
    assert_eq!(refused, Some(ErrorCode::Unavailable));

    proxy.set(Mode::Pass);
    eventually("the message is accepted", async || {
        alice.say_as(unknown, message_id, "patience").await
    })
    .await;
    assert_eq!(bob.message().await.message, "patience");
}

/// The code that a stranger's hello is refused with.
async fn hello(ws: &str, secret: &str) -> Option<ErrorCode> {
    let mut connection = Connection::connect(ws, Codec::Json, None)
        .await
        .expect("the gateway takes sockets");
    let hello = Hello {
        id: 1,
        token: Some(Identity::fresh("stranger").token(secret)),
        name: None,
        replace: None,
    };
    match connection.hello(hello).await {
        Err(RequestFailed::Refused(error)) => Some(error.code),
        _ => None,
    }
}
