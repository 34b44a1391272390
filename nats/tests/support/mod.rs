//! A connection to real servers, and questions that are asked until they are answered.

use std::time::{Duration, Instant};

use serde_json::Value;
use tidings_nats::Bus;

/// For a call; an election takes up to several seconds.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Connects to one server, or to any of a cluster's. To nobody else: who is connected to one server means that one,
/// and goes back to it when it is back.
pub(crate) async fn connect(cluster: &str) -> Bus {
    let login = |url: &str| {
        let (login, server) = url.strip_prefix("nats://")?.split_once('@')?;
        let (user, password) = login.split_once(':')?;
        Some((user.to_owned(), password.to_owned(), server.to_owned()))
    };
    let servers: Vec<_> = cluster
        .split(',')
        .map(|url| login(url).expect("a URL with a password"))
        .collect();
    let (user, password, _) = servers[0].clone();
    let options = async_nats::ConnectOptions::with_user_and_password(user, password)
        .ignore_discovered_servers()
        .reconnect_delay_callback(|_| Duration::from_millis(50));
    let servers: Vec<String> = servers.into_iter().map(|(.., server)| server).collect();
    let client = options.connect(servers).await.expect("a server answers");
    Bus::new(client)
}

/// Asks until it is answered.
pub(crate) async fn ask(bus: &Bus, subject: &str, body: &Value) -> Value {
    let began = Instant::now();
    loop {
        match bus.api::<Value>(subject, body, TIMEOUT).await {
            Ok(answer) => return answer,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{subject}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
