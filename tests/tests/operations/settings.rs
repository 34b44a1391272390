//! The guide names every setting and every metric that there is.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use tidings_tests::System;

use crate::guide::GUIDE;
use crate::shell::Shell;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_is_in_the_guide() {
    let shell = Shell::of(System::shared().await).await;
    for service in ["gateway", "fanout-worker", "inbox-worker", "media"] {
        let help = shell.text(&format!("tidings {service} --help")).await;
        let flags: Vec<&str> = help
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("--"))
            .filter_map(|line| line.split_whitespace().next())
            // A sentence may be wrapped before its last word.
            .map(|flag| flag.trim_end_matches(['.', ',', ':', ';']))
            .collect();
        assert!(flags.len() >= 10, "{help}");
        for flag in flags {
            assert!(
                GUIDE.contains(&format!("`--{flag}`")),
                "{service} --{flag} is not told"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_in_the_guide() {
    let system = System::shared().await;
    for process in system.up_file().processes {
        let Some(admin) = process.admin.filter(|_| !process.name.starts_with("nats")) else {
            continue;
        };
        let metrics = get(&admin, "/metrics");
        let names: Vec<&str> = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .filter(|name| name.starts_with("tidings_") && *name != "tidings_build_info")
            .collect();
        assert!(names.len() >= 4, "{}: {metrics}", process.name);
        for name in names {
            assert!(
                GUIDE.contains(&format!("`{name}`")),
                "{}: {name} is not told",
                process.name
            );
        }
        assert!(get(&admin, "/healthz").starts_with("HTTP/1.1 200"));
        assert!(get(&admin, "/readyz").contains("\"ready\":true"));
    }
}

/// Plain HTTP by hand: it is all that a probe needs.
fn get(admin: &str, path: &str) -> String {
    let host = admin.strip_prefix("http://").expect("the admin port speaks HTTP");
    let mut stream = TcpStream::connect(host).expect("the admin port listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("the request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text");
    answer
}
