//! Real servers are found, started, killed, stopped and started again with their data.

use std::time::{Duration, Instant};

use tidings_stack::{NatsCluster, NatsServer, Postgres, Seaweed, started};

/// Whether somebody takes connections there.
fn answers(url: &str) -> bool {
    let address = url.rsplit_once('@').expect("the URL has a login").1;
    let address = address.split('/').next().expect("split gives one part at least");
    std::net::TcpStream::connect(address).is_ok()
}

#[tokio::test]
async fn one_nats_server_keeps_its_port() {
    let mut nats = NatsServer::start_temp().await.expect("nats-server starts");
    let url = nats.url();
    assert!(answers(&url), "{url}");
    let first = nats.pid().expect("it runs");
    nats.kill().await;
    assert!(!answers(&url) && nats.pid().is_none());
    nats.start().await.expect("it starts again");
    assert_ne!(nats.pid(), Some(first));
    assert!(answers(&url));
    nats.restart().await.expect("it starts again");
    let last = nats.pid().expect("it runs");
    drop(nats);
    assert_eq!(started(last), None, "dropping ends it");
}

#[tokio::test]
async fn three_nats_servers_are_a_cluster() {
    let mut cluster = NatsCluster::start_temp().await.expect("three nats-servers start");
    assert_eq!(cluster.nodes.len(), 3);
    cluster.nodes[0].kill().await;
    cluster.nodes[0].start().await.expect("it joins again");
    cluster.stop().await;
    assert!(cluster.nodes.iter().all(|node| node.pid().is_none()));
}

#[tokio::test]
async fn postgres_keeps_its_data() {
    let mut postgres = Postgres::start_temp().await.expect("Postgres starts");
    assert!(answers(postgres.url()), "{}", postgres.url());
    for _ in 0..5 {
        postgres.kill().await;
        postgres.start().await.expect("it starts again after a crash");
    }
    let began = Instant::now();
    postgres.restart().await.expect("it starts again after a stop");
    assert!(began.elapsed() < Duration::from_secs(20), "the stop was in order");
    assert!(answers(postgres.url()));
}

#[tokio::test]
async fn seaweed_comes_up_again_after_a_crash() {
    let mut seaweed = Seaweed::start_temp().await.expect("SeaweedFS starts");
    let address = seaweed.endpoint().trim_start_matches("http://").to_owned();
    let answers = || std::net::TcpStream::connect(&address).is_ok();
    assert!(answers(), "{address}");
    seaweed.kill().await;
    assert!(!answers() && seaweed.pid().is_none());
    let began = Instant::now();
    seaweed.start().await.expect("it starts again");
    assert!(answers() && began.elapsed() < Duration::from_secs(20));
}
