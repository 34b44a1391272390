//! A message's path, as a collector gets it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue as Any, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;
use tidings_nats::{Bus, HEADER_TRACE, Inbox, inbox_stream, inbox_subject};
use tidings_protocol::{ChatId, ClientId, Codec, MessageId, UserId};
use tidings_tests::{Device, Identity, System, SystemOptions, eventually};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::scene::SAID;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A span, and which service sent it.
#[derive(Clone, Debug)]
struct Seen {
    service: String,
    span: Span,
}

impl Seen {
    fn text(&self, key: &str) -> Option<String> {
        text(&self.span.attributes, key)
    }

    fn is_child_of(&self, parent: &Self) -> bool {
        self.span.trace_id == parent.span.trace_id && self.span.parent_span_id == parent.span.span_id
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match &attribute.value {
        Some(Any {
            value: Some(AnyValue::StringValue(text)),
        }) => Some(text.clone()),
        Some(Any {
            value: Some(AnyValue::IntValue(number)),
        }) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}

/// Takes OTLP over HTTP.
struct Collector {
    endpoint: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    bodies: Arc<Mutex<Vec<Bytes>>>,
    serving: JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let bodies: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let (all_seen, all_bodies) = (Arc::clone(&seen), Arc::clone(&bodies));
        let route = post(async move |body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body.clone()).expect("it is OTLP");
            all_bodies.lock().push(body);
            for of_resource in request.resource_spans {
                let resource = of_resource.resource.expect("spans say whose they are");
                let service = text(&resource.attributes, "service.name").expect("a service's name");
                let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                all_seen.lock().extend(spans.map(|span| Seen {
                    service: service.clone(),
                    span,
                }));
            }
        });
        let router = axum::Router::new().route("/v1/traces", route);
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        Self {
            endpoint,
            seen,
            bodies,
            serving,
        }
    }

    fn named(&self, name: &str) -> Vec<Seen> {
        let seen = self.seen.lock();
        seen.iter()
            .filter(|seen| seen.span.name == name)
            .cloned()
            .collect()
    }

    /// The first span of a message.
    async fn send(&self, message_id: MessageId) -> Seen {
        let id = message_id.to_string();
        eventually("the message's span is there", async || {
            let sends = self.named("send");
            let mine = sends
                .iter()
                .find(|seen| seen.text("message.id").as_ref() == Some(&id));
            mine.cloned().ok_or(sends.len())
        })
        .await
    }

    /// The span of this name that comes of another one, and of a client where it is a delivery.
    async fn child(&self, parent: &Seen, name: &str, client_id: Option<ClientId>) -> Seen {
        let client = client_id.map(|client_id| client_id.to_string());
        eventually(&format!("{name} comes of {}", parent.span.name), async || {
            let found = self.named(name);
            let mine = found.iter().find(|seen| {
                seen.is_child_of(parent) && (client.is_none() || seen.text("client.id") == client)
            });
            mine.cloned().ok_or(found)
        })
        .await
    }
}

async fn say(device: &mut Device, chat_id: ChatId) -> MessageId {
    let message_id = MessageId(Uuid::new_v4());
    let reply = device.say_as(chat_id, message_id, SAID).await;
    reply.expect("it is accepted");
    message_id
}

/// The trace headers of what an inbox holds.
async fn headers(bus: &Bus, user_id: &UserId, client_id: ClientId) -> Vec<Option<String>> {
    let topology = tidings_nats::setup::check(bus).await.expect("it is set up");
    let stream = inbox_stream(topology.shard(user_id));
    let subject = inbox_subject(&topology, user_id, Inbox::Client(client_id));
    let (mut from, mut headers) = (1, Vec::new());
    while let Some(entry) = bus
        .next_headed(&stream, &subject, from, TIMEOUT)
        .await
        .expect("the stream answers")
    {
        headers.push(entry.header(HEADER_TRACE).map(str::to_owned));
        from = entry.sequence + 1;
    }
    headers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_followed_through_all_services_and_back() {
    let collector = Collector::start().await;
    let system = System::start(&SystemOptions {
        inbox_workers: 1,
        settings: vec![
            ("TIDINGS_OTLP_ENDPOINT", collector.endpoint.clone()),
            ("TIDINGS_TRACE_RATIO", "1".to_owned()),
        ],
        ..SystemOptions::default()
    })
    .await;
    let mut alice = Device::fresh(&system, "alice").await;
    let bob = Identity::fresh("bob");
    let mut at_bobs = Device::on(&system, 1, &bob, Codec::Json).await;
    let carol = Identity::fresh("carol");
    Device::of(&system, &carol).await.close().await;
    let chat_id = alice
        .create_group(&[bob.user_id.clone(), carol.user_id.clone()])
        .await;
    let created = at_bobs.update().await;
    at_bobs.confirm(created.delivery).await;

    let message_id = say(&mut alice, chat_id).await;
    let heard = at_bobs.message().await;
    let send = collector.send(message_id).await;
    assert_eq!(send.service, "gateway");
    assert!(send.span.parent_span_id.is_empty());
    assert_eq!(send.text("chat.id"), Some(chat_id.to_string()));
    let publish = collector.child(&send, "publish", None).await;
    let seq = heard.seq.to_string();
    assert_eq!(publish.text("stream.sequence").as_ref(), Some(&seq));
    let fan_out = collector.child(&publish, "fan out", None).await;
    assert_eq!(
        (fan_out.service.as_str(), fan_out.text("stream.sequence")),
        ("fanout-worker", Some(seq))
    );
    assert_eq!(fan_out.text("recipients").as_deref(), Some("2"));
    collector.child(&fan_out, "store", None).await;
    let live = collector.child(&fan_out, "deliver", Some(bob.client_id)).await;
    assert_eq!(
        (live.service.as_str(), live.text("way").as_deref()),
        ("gateway", Some("live"))
    );
    assert_eq!(live.text("delivery"), Some(heard.delivery.to_string()));
    for seen in [&send, &publish, &fan_out, &live] {
        let (begins, ends) = (seen.span.start_time_unix_nano, seen.span.end_time_unix_nano);
        assert!(0 < begins && begins <= ends, "{seen:?}");
    }

    // Who was away reads it later, and that comes of the same.
    let mut at_carols = Device::of(&system, &carol).await;
    at_carols.message().await;
    let scan = collector.child(&fan_out, "deliver", Some(carol.client_id)).await;
    assert_eq!(scan.text("way").as_deref(), Some("scan"));
    at_carols.close().await;

    // A message that is not chosen carries nothing.
    let bus = Bus::new(system.nats().await);
    let before = headers(&bus, &carol.user_id, carol.client_id).await;
    assert!(before.last().is_some_and(Option::is_some), "{before:?}");
    let elsewhere = system
        .extra_gateway(&[
            ("TIDINGS_OTLP_ENDPOINT", &collector.endpoint),
            ("TIDINGS_TRACE_RATIO", "0"),
        ])
        .await;
    let dave = Identity::new(&bob.user_id);
    let token = dave.token(&system.secret());
    let mut not_traced = Device::at(&elsewhere.ws, &dave, &token, Codec::Json).await;
    say(&mut not_traced, chat_id).await;
    alice.message().await;
    let after = eventually("carol has the message", async || {
        let headers = headers(&bus, &carol.user_id, carol.client_id).await;
        if headers.len() > before.len() {
            Ok(headers)
        } else {
            Err(headers)
        }
    })
    .await;
    assert_eq!(after.last(), Some(&None));
    // A later one that is traced has all its spans, so those of the other one would be there.
    let message_id = say(&mut alice, chat_id).await;
    at_bobs.message().await;
    collector.send(message_id).await;
    let sends = collector.named("send");
    assert_eq!(sends.len(), 2, "{sends:?}");

    // Nobody can read there what people wrote, or who they are.
    let secrets = [SAID, bob.user_id.as_str(), carol.user_id.as_str()];
    for body in collector.bodies.lock().iter() {
        for secret in secrets {
            let found = body.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} is in a span");
        }
    }

    // Without a collector everything goes on.
    collector.serving.abort();
    for _ in 0..50 {
        say(&mut alice, chat_id).await;
        at_bobs.message().await;
    }
}
