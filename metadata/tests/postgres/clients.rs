//! Clients register, are replaced and removed; three at most are active, one at most is the heir.

use tidings_metadata::{
    ClientState, OutboxKey, RegisterClient, RegisterError, Registered, RemoveClientError,
};
use tidings_protocol::{ClientId, Registration};

use crate::test_database::{TestDatabase, at_once, client, hello, user};

fn named(user_id: &str, client: ClientId, name: &str) -> RegisterClient {
    RegisterClient {
        name: Some(name.to_owned()),
        ..hello(user_id, client)
    }
}

fn replacing(user_id: &str, client: ClientId, replaced: ClientId) -> RegisterClient {
    RegisterClient {
        replace: Some(replaced),
        ..hello(user_id, client)
    }
}

impl TestDatabase {
    async fn refused_hello(&self, hello: RegisterClient) -> RegisterError {
        self.metadata
            .register_client(hello)
            .await
            .expect_err("the client may not register")
    }

    async fn active(&self, user_id: &str) -> Vec<ClientId> {
        let clients = self
            .metadata
            .clients_of(&user(user_id))
            .await
            .expect("clients can be read");
        clients.into_iter().map(|client| client.client_id).collect()
    }

    /// How many rows of the outbox tell of this user.
    async fn user_versions(&self, user_id: &str) -> Vec<u64> {
        self.publish(OutboxKey::User(user(user_id)), 1).await
    }
}

#[tokio::test]
async fn a_client_is_new_once_and_known_afterwards() {
    let database = TestDatabase::new().await;
    let phone = client();
    let new = Registered {
        registration: Registration::New,
        heir: true,
        changed: true,
        removed: None,
        away_since: None,
        told_until: None,
    };
    assert_eq!(database.register("alice", phone).await, new);
    assert_eq!(database.user_versions("alice").await, [1]);

    let known = Registered {
        registration: Registration::Known,
        heir: true,
        changed: false,
        removed: None,
        away_since: None,
        told_until: Some(1),
    };
    assert_eq!(database.register("alice", phone).await, known);
    assert_eq!(database.user_versions("alice").await, [] as [u64; 0]);
    assert_eq!(database.active("alice").await, [phone]);
}

#[tokio::test]
async fn a_name_is_kept_until_another_is_said() {
    let database = TestDatabase::new().await;
    let phone = client();
    for (said, kept) in [
        (Some("Pixel"), "Pixel"),
        (None, "Pixel"),
        (Some("Fairphone"), "Fairphone"),
    ] {
        let hello = RegisterClient {
            name: said.map(str::to_owned),
            ..hello("alice", phone)
        };
        database
            .metadata
            .register_client(hello)
            .await
            .expect("the client can register");
        let clients = database
            .metadata
            .clients_of(&user("alice"))
            .await
            .expect("clients can be read");
        assert_eq!(clients[0].name.as_deref(), Some(kept));
        assert!(!clients[0].online);
    }
}

#[tokio::test]
async fn the_fourth_is_told_of_the_three() {
    let database = TestDatabase::new().await;
    let three = [client(), client(), client()];
    for (client, name) in three.into_iter().zip(["a", "b", "c"]) {
        database
            .metadata
            .register_client(named("alice", client, name))
            .await
            .expect("three may register");
    }
    let fourth = client();
    let RegisterError::TooManyClients(clients) = database.refused_hello(hello("alice", fourth)).await else {
        panic!("three are active already");
    };
    assert_eq!(
        clients.iter().map(|client| client.client_id).collect::<Vec<_>>(),
        three
    );
    assert_eq!(
        clients
            .iter()
            .filter_map(|client| client.name.as_deref())
            .collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
    assert_eq!(
        database
            .metadata
            .client(fourth)
            .await
            .expect("clients can be read"),
        None
    );
    // The three are not in each other's way, nor in another user's.
    assert_eq!(
        database.register("alice", three[0]).await.registration,
        Registration::Known
    );
    assert_eq!(
        database.register("bob", fourth).await.registration,
        Registration::New
    );
}

#[tokio::test]
async fn a_replaced_client_is_removed_for_ever() {
    let database = TestDatabase::new().await;
    let three = [client(), client(), client()];
    for client in three {
        database.register("alice", client).await;
    }
    let fourth = client();
    let hello_again = replacing("alice", fourth, three[1]);
    let registered = database
        .metadata
        .register_client(hello_again.clone())
        .await
        .expect("one makes room");
    let expected = Registered {
        registration: Registration::New,
        heir: false,
        changed: true,
        removed: Some(three[1]),
        away_since: None,
        told_until: None,
    };
    assert_eq!(registered, expected);
    assert_eq!(database.active("alice").await, [three[0], three[2], fourth]);
    assert_eq!(database.user_versions("alice").await, [1, 2, 3, 4]);
    assert!(matches!(
        database.refused_hello(hello("alice", three[1])).await,
        RegisterError::Removed
    ));

    // The same hello again, whose answer was lost.
    let registered = database
        .metadata
        .register_client(hello_again)
        .await
        .expect("it is active");
    assert_eq!(
        (registered.registration, registered.removed),
        (Registration::Known, None)
    );
    // Replacing somebody who is gone makes no room.
    let fifth = client();
    let refusal = database.refused_hello(replacing("alice", fifth, three[1])).await;
    assert!(matches!(refusal, RegisterError::TooManyClients(_)), "{refusal}");
}

#[tokio::test]
async fn only_another_client_of_ones_own_is_replaced() {
    let database = TestDatabase::new().await;
    let (alices, bobs) = (client(), client());
    database.register("alice", alices).await;
    database.register("bob", bobs).await;
    let new = client();
    for replaced in [bobs, client(), new] {
        let refusal = database.refused_hello(replacing("alice", new, replaced)).await;
        assert!(matches!(refusal, RegisterError::ReplaceNotFound), "{refusal}");
    }
    assert_eq!(database.active("bob").await, [bobs]);
}

#[tokio::test]
async fn a_client_belongs_to_one_user() {
    let database = TestDatabase::new().await;
    let phone = client();
    database.register("alice", phone).await;
    assert!(matches!(
        database.refused_hello(hello("bob", phone)).await,
        RegisterError::ForeignClient
    ));
    // Whatever has become of it.
    database
        .metadata
        .remove_client(&user("alice"), phone, Some(100))
        .await
        .expect("it is alice's");
    assert!(matches!(
        database.refused_hello(hello("bob", phone)).await,
        RegisterError::ForeignClient
    ));
    assert_eq!(
        database
            .count("SELECT count(*) FROM users WHERE user_id = 'bob'")
            .await,
        0
    );
}

#[tokio::test]
async fn removing_is_final_and_done_once() {
    let database = TestDatabase::new().await;
    let (phone, laptop) = (client(), client());
    database.register("alice", phone).await;
    database.register("alice", laptop).await;
    database.user_versions("alice").await;
    let (alice, bob) = (user("alice"), user("bob"));

    let not_bobs = database.metadata.remove_client(&bob, phone, Some(100)).await;
    assert!(
        matches!(not_bobs, Err(RemoveClientError::NotFound)),
        "{not_bobs:?}"
    );
    let unknown = database.metadata.remove_client(&alice, client(), Some(100)).await;
    assert!(matches!(unknown, Err(RemoveClientError::NotFound)), "{unknown:?}");

    assert!(
        database
            .metadata
            .remove_client(&alice, phone, Some(100))
            .await
            .expect("it is alice's")
    );
    assert!(
        !database
            .metadata
            .remove_client(&alice, phone, Some(100))
            .await
            .expect("it was alice's")
    );
    assert_eq!(database.user_versions("alice").await, [3]);
    assert_eq!(database.active("alice").await, [laptop]);
    assert!(matches!(
        database.refused_hello(hello("alice", phone)).await,
        RegisterError::Removed
    ));
    let record = database
        .metadata
        .client(phone)
        .await
        .expect("clients can be read")
        .expect("it is kept");
    assert_eq!((record.user, record.state), (alice, ClientState::Removed));
}

#[tokio::test]
async fn who_registers_while_nobody_is_active_is_the_heir() {
    let database = TestDatabase::new().await;
    let alice = user("alice");
    let (first, second, third, fourth) = (client(), client(), client(), client());
    assert!(database.register("alice", first).await.heir);
    assert!(!database.register("alice", second).await.heir);
    // The heir goes; what it inherited went with it, and nobody follows while another is active.
    database
        .metadata
        .remove_client(&alice, first, Some(100))
        .await
        .expect("it is alice's");
    assert!(!database.register("alice", third).await.heir);
    assert!(!database.register("alice", second).await.heir);
    database
        .metadata
        .remove_client(&alice, second, Some(100))
        .await
        .expect("it is alice's");
    database
        .metadata
        .remove_client(&alice, third, Some(100))
        .await
        .expect("it is alice's");
    // Now messages wait under `first` again.
    assert!(database.register("alice", fourth).await.heir);
    assert!(database.register("alice", fourth).await.heir);
    // Whoever replaces the only one takes its place.
    let fifth = client();
    let registered = database
        .metadata
        .register_client(replacing("alice", fifth, fourth))
        .await;
    assert!(registered.expect("it is alice's").heir);
}

#[tokio::test]
async fn of_twenty_hellos_at_once_three_get_in() {
    let database = TestDatabase::new().await;
    database.open_connections(20).await;
    // All twenty are held where they would decide, so that they do race.
    database
        .execute("INSERT INTO users (user_id) VALUES ('alice')")
        .await;
    let mut gate = database.pool.begin().await.expect("a transaction can begin");
    sqlx::query("SELECT FROM users FOR UPDATE")
        .execute(&mut *gate)
        .await
        .expect("the row is free");
    let hellos = (0..20).map(|_| {
        let metadata = database.metadata.clone();
        async move { metadata.register_client(hello("alice", client())).await }
    });
    let hellos = tokio::spawn(at_once(hellos.collect::<Vec<_>>()));
    database.until_waiting(20).await;
    gate.commit().await.expect("the gate opens");

    let (mut registered, mut heirs) = (0, 0);
    for outcome in hellos.await.expect("the tasks end") {
        match outcome {
            Ok(outcome) => {
                registered += 1;
                heirs += u32::from(outcome.heir);
            }
            Err(RegisterError::TooManyClients(clients)) => assert_eq!(clients.len(), 3),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((registered, heirs), (3, 1));
    assert_eq!(database.active("alice").await.len(), 3);
    assert_eq!(database.user_versions("alice").await, [1, 2, 3]);
}

#[tokio::test]
async fn the_first_hellos_of_a_user_race_too() {
    let database = TestDatabase::new().await;
    database.open_connections(10).await;
    for round in 0..5 {
        let user_id = format!("user{round}");
        let hellos = (0..8).map(|_| {
            let (metadata, hello) = (database.metadata.clone(), hello(&user_id, client()));
            async move { metadata.register_client(hello).await }
        });
        let outcomes = at_once(hellos.collect::<Vec<_>>()).await;
        let registered: Vec<_> = outcomes.into_iter().filter_map(Result::ok).collect();
        assert_eq!(registered.len(), 3, "{user_id}");
        assert_eq!(registered.iter().filter(|one| one.heir).count(), 1, "{user_id}");
    }
}

#[tokio::test]
async fn one_client_that_says_hello_many_times_at_once_is_one() {
    let database = TestDatabase::new().await;
    database.open_connections(10).await;
    let phone = client();
    let hellos = (0..10).map(|_| {
        let metadata = database.metadata.clone();
        async move {
            metadata
                .register_client(hello("alice", phone))
                .await
                .expect("it may register")
        }
    });
    let outcomes = at_once(hellos.collect::<Vec<_>>()).await;
    assert_eq!(
        outcomes
            .iter()
            .filter(|one| one.registration == Registration::New)
            .count(),
        1
    );
    assert!(outcomes.iter().all(|one| one.heir));
    assert_eq!(database.user_versions("alice").await, [1]);
}

#[tokio::test]
async fn two_users_who_claim_one_client_at_once_do_not_both_get_it() {
    let database = TestDatabase::new().await;
    database.open_connections(10).await;
    for _ in 0..5 {
        let phone = client();
        let hellos = ["alice", "bob"].map(|user_id| {
            let metadata = database.metadata.clone();
            async move { metadata.register_client(hello(user_id, phone)).await }
        });
        let outcomes = at_once(hellos).await;
        let owner = database
            .metadata
            .client(phone)
            .await
            .expect("clients can be read")
            .expect("one has it")
            .user;
        for (user_id, outcome) in ["alice", "bob"].into_iter().zip(outcomes) {
            match outcome {
                Ok(_) => assert_eq!(owner.as_str(), user_id),
                Err(error) => assert!(matches!(error, RegisterError::ForeignClient), "{error}"),
            }
        }
        database
            .metadata
            .remove_client(&owner, phone, Some(100))
            .await
            .expect("it is the owner's");
    }
}

#[tokio::test]
async fn two_who_replace_the_same_client_at_once_do_not_both_get_in() {
    let database = TestDatabase::new().await;
    database.open_connections(10).await;
    let three = [client(), client(), client()];
    for client in three {
        database.register("alice", client).await;
    }
    let hellos = [client(), client()].map(|new| {
        let metadata = database.metadata.clone();
        async move { metadata.register_client(replacing("alice", new, three[0])).await }
    });
    let outcomes = at_once(hellos).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(database.active("alice").await.len(), 3);
}

#[tokio::test]
async fn active_clients_are_told_for_everybody_who_was_asked_for() {
    let database = TestDatabase::new().await;
    let (phone, laptop, removed, bobs) = (client(), client(), client(), client());
    for client in [phone, laptop, removed] {
        database.register("alice", client).await;
    }
    database.register("auth0|bob", bobs).await;
    database.register("carol", client()).await;
    database
        .metadata
        .remove_client(&user("alice"), removed, Some(100))
        .await
        .expect("it is alice's");

    let asked = [user("alice"), user("auth0|bob"), user("nobody yet")];
    let mut clients = database
        .metadata
        .active_clients(&asked)
        .await
        .expect("clients can be read");
    assert_eq!(clients.remove(&asked[0]), Some(vec![phone, laptop]));
    assert_eq!(clients.remove(&asked[1]), Some(vec![bobs]));
    assert_eq!(clients.remove(&asked[2]), Some(vec![]));
    assert!(clients.is_empty());
}
