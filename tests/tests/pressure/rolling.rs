//! Every process replaced, one after the other, while people write: nothing is lost, doubled or out of order, and whoever
//! is refused may try again.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use tidings_protocol::{ClientFrame, ErrorCode, ServerFrame, Status};
use tidings_tests::history::{Happening, Recorder, Run, What};
use tidings_tests::judge::{judge, timings};
use tidings_tests::workload::{Targets, Workload, WorkloadOptions};
use tidings_tests::{Stored, System, SystemOptions};

use crate::scale::scale;

/// What a message may be refused with for good, whatever the system does: its sender has been removed meanwhile.
const OF_PEOPLE: [ErrorCode; 3] = [
    ErrorCode::NotAParticipant,
    ErrorCode::NotFound,
    ErrorCode::ChatClosed,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_is_replaced_while_people_write() {
    let nats = scale("NATS", 1);
    let system = System::start(&SystemOptions {
        nats,
        ..SystemOptions::default()
    })
    .await;
    let (seed, between) = (scale("SEED", 9), scale("BETWEEN", 20));
    let recorder = Recorder::in_memory();
    let up = system.up_file();
    let targets = Targets {
        urls: up.ws,
        media: up.media.into_iter().collect(),
        secret: up.jwt_secret,
    };
    let options = WorkloadOptions {
        users: scale("USERS", 12),
        late_users: 1,
        groups: scale("GROUPS", 6),
        sends_per_second: scale("SENDS", 20.0),
        length: Duration::from_secs(30),
        ..WorkloadOptions::default()
    };
    let workload = Workload::start(targets, seed, options, recorder.clone()).await;
    // Workers first: they read what older gateways write.
    let services = ["fanout-worker", "inbox-worker", "gateway"];
    let mut names: Vec<String> = services
        .iter()
        .flat_map(|service| (1..=2).map(move |number| format!("{service}-{number}")))
        .collect();
    if nats > 1 {
        names.extend((1..=nats).map(|number| format!("nats-{number}")));
    }
    for name in &names {
        workload.until_accepted(workload.accepted() + between).await;
        recorder.happened(Happening::begins("SIGTERM", name));
        system.signal_and_wait(name, Signal::SIGTERM).await;
        recorder.happened(Happening::ends("SIGTERM", name));
    }
    workload.until_accepted(workload.accepted() + between).await;
    let report = workload.finish().await;
    let (records, events) = recorder.finish().expect("nothing is written to a disk");
    let stored = Stored::of(&system)
        .await
        .left(&report.users, &report.clients)
        .await;
    let run = Run {
        records,
        events,
        stored: Some(stored),
    };
    let (verdict, refused) = (judge(&run), refused(&run));
    eprintln!(
        "rolling, seed {seed}: {report}\n{}\nrefused sends: {refused:?}\n{verdict}",
        timings(&run)
    );
    assert!(verdict.is_clean(), "seed {seed}: {report}\n{verdict}");
    for (code, retryable) in refused.keys() {
        let of_people = OF_PEOPLE.iter().any(|allowed| allowed.as_str() == code);
        assert!(*retryable || of_people, "seed {seed}: {refused:?}");
    }
}

/// How often sends were refused, by code and whether they may be tried again.
fn refused(run: &Run) -> BTreeMap<(String, bool), u64> {
    let mut sends = std::collections::HashSet::new();
    let mut refused = BTreeMap::new();
    for record in &run.records {
        match &record.what {
            What::Sent(frame) => {
                if let ClientFrame::SendMessage(send) = &**frame {
                    sends.insert((record.connection.clone(), send.id));
                }
            }
            What::Received(frame) => {
                let ServerFrame::Reply(reply) = &**frame else {
                    continue;
                };
                let (Some(id), Status::Failure, Some(error)) = (reply.id, reply.status, &reply.error) else {
                    continue;
                };
                if sends.contains(&(record.connection.clone(), id)) {
                    *refused
                        .entry((error.code.as_str().to_owned(), error.retryable))
                        .or_default() += 1;
                }
            }
            _ => {}
        }
    }
    refused
}
