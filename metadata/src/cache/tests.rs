//! The cache with its calls polled by hand: the tests decide who runs when.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use tokio::sync::oneshot;

type Cache = InvalidatedCache<&'static str, u32, &'static str>;

fn cache() -> Cache {
    Cache::new(100, Duration::from_hours(1))
}

/// A call, polled by hand: the tests decide who runs when.
struct Call<'a, T>(std::pin::Pin<Box<dyn Future<Output = T> + 'a>>);

impl<'a, T> Call<'a, T> {
    fn started(future: impl Future<Output = T> + 'a) -> Self {
        let mut call = Self(Box::pin(future));
        assert!(call.poll().is_none(), "the call waits for its load");
        call
    }

    fn poll(&mut self) -> Option<T> {
        match self.0.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    fn ended(mut self) -> T {
        self.poll().expect("nothing is left to wait for")
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    Call(Box::pin(future)).ended()
}

/// A load that ends when the test says so, and counts how often it was begun.
struct Gate(
    Mutex<Vec<oneshot::Receiver<Result<u32, &'static str>>>>,
    AtomicU32,
);

impl Gate {
    fn new() -> (Self, oneshot::Sender<Result<u32, &'static str>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Mutex::new(vec![receiver]), AtomicU32::new(0)), sender)
    }

    fn load(&self) -> impl Future<Output = Result<u32, &'static str>> + use<> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let receiver = self
            .0
            .lock()
            .expect("no test panics in here")
            .pop()
            .expect("loaded once");
        async { receiver.await.expect("the test ends the load") }
    }
}

fn never() -> std::future::Ready<Result<u32, &'static str>> {
    panic!("nothing is to be loaded")
}

#[test]
fn what_was_loaded_is_here() {
    let cache = cache();
    assert_eq!(cache.get(&"a"), None);
    assert_eq!(now(cache.get_or_load(&"a", async || Ok(1))), Ok(1));
    assert_eq!(cache.get(&"a"), Some(1));
    assert_eq!(now(cache.get_or_load(&"a", never)), Ok(1));
    cache.invalidate(&"a");
    assert_eq!(cache.get(&"a"), None);
}

#[test]
fn those_who_want_the_same_share_one_load() {
    let cache = cache();
    let (gate, open) = Gate::new();
    let mut first = Call::started(cache.get_or_load(&"a", || gate.load()));
    let second = Call::started(cache.get_or_load(&"a", never));
    open.send(Ok(1)).expect("the load waits");
    assert_eq!(first.poll(), Some(Ok(1)));
    assert_eq!(second.ended(), Ok(1));
    assert_eq!(gate.1.load(Ordering::Relaxed), 1);
}

#[test]
fn a_failure_is_shared_and_forgotten() {
    let cache = cache();
    let (gate, open) = Gate::new();
    let first = Call::started(cache.get_or_load(&"a", || gate.load()));
    let second = Call::started(cache.get_or_load(&"a", never));
    open.send(Err("down")).expect("the load waits");
    assert_eq!(first.ended(), Err(Arc::new("down")));
    assert_eq!(second.ended(), Err(Arc::new("down")));
    assert_eq!(now(cache.get_or_load(&"a", async || Ok(2))), Ok(2));
}

/// Begins a load, does something in the middle of it, ends it with 1, and says what is here afterwards.
fn interrupted_by(interrupt: impl FnOnce(&Cache)) -> Option<u32> {
    let cache = cache();
    let (gate, open) = Gate::new();
    let call = Call::started(cache.get_or_load(&"a", || gate.load()));
    interrupt(&cache);
    open.send(Ok(1)).expect("the load waits");
    assert_eq!(call.ended(), Ok(1), "who asked before is answered");
    cache.get(&"a")
}

#[test]
fn a_load_stores_nothing_that_was_invalidated_meanwhile() {
    assert_eq!(interrupted_by(|cache| cache.invalidate(&"b")), Some(1));
    assert_eq!(interrupted_by(|cache| cache.invalidate(&"a")), None);
    assert_eq!(interrupted_by(Cache::clear), None);
    assert_eq!(interrupted_by(|cache| cache.put("a", 7)), Some(7));
    // A second load, begun and ended after the invalidation, stands.
    let reload = |cache: &Cache| {
        cache.invalidate(&"a");
        assert_eq!(now(cache.get_or_load(&"a", async || Ok(2))), Ok(2));
    };
    assert_eq!(interrupted_by(reload), Some(2));
}

#[test]
fn who_asks_after_an_invalidation_does_not_wait_for_the_load_before_it() {
    let cache = cache();
    let (old, open_old) = Gate::new();
    let (new, open_new) = Gate::new();
    let before = Call::started(cache.get_or_load(&"a", || old.load()));
    cache.invalidate(&"a");
    let after = Call::started(cache.get_or_load(&"a", || new.load()));
    open_old.send(Ok(1)).expect("the load waits");
    assert_eq!(before.ended(), Ok(1));
    assert_eq!(cache.get(&"a"), None, "the old load does not end the new one");
    open_new.send(Ok(2)).expect("the load waits");
    assert_eq!(after.ended(), Ok(2));
    assert_eq!(cache.get(&"a"), Some(2));
}

#[test]
fn who_waits_takes_over_from_one_who_went_away() {
    let cache = cache();
    let (gate, _never_opened) = Gate::new();
    let first = Call::started(cache.get_or_load(&"a", || gate.load()));
    let second = Call::started(cache.get_or_load(&"a", async || Ok(2)));
    drop(first);
    assert_eq!(second.ended(), Ok(2));
    assert_eq!(cache.get(&"a"), Some(2));
}

#[test]
fn many_are_loaded_at_once_without_those_that_are_here_or_under_way() {
    let cache = cache();
    cache.put("here", 1);
    let (gate, open) = Gate::new();
    let under_way = Call::started(cache.get_or_load(&"under way", || gate.load()));
    let keys = ["here", "missing", "under way", "absent", "missing"];
    let many = Call::started(cache.get_or_load_many(&keys, async |keys| {
        assert_eq!(keys, ["missing", "absent"]);
        Ok(HashMap::from_iter([("missing", 2)]))
    }));
    assert_eq!(cache.get(&"missing"), Some(2), "stored before waiting for others");
    open.send(Ok(3)).expect("the load waits");
    assert_eq!(under_way.ended(), Ok(3));
    let expected = HashMap::from_iter([("here", 1), ("missing", 2), ("under way", 3)]);
    assert_eq!(many.ended(), Ok(expected));
    assert_eq!(cache.get(&"absent"), None);
}

#[test]
fn two_who_want_each_others_keys_do_not_wait_for_ever() {
    let cache = cache();
    let (a, open_a) = Gate::new();
    let (b, open_b) = Gate::new();
    let one = |value: Result<u32, _>, key| value.map(|value| HashMap::from_iter([(key, value)]));
    let mut first = Call::started(cache.get_or_load_many(&["a"], |_| {
        let load = a.load();
        async move { one(load.await, "a") }
    }));
    let mut second = Call::started(cache.get_or_load_many(&["b", "a"], |keys| {
        assert_eq!(keys, ["b"]);
        let load = b.load();
        async move { one(load.await, "b") }
    }));
    let mut third =
        Call::started(cache.get_or_load_many(&["a", "b"], |_| async { panic!("both are under way") }));
    open_b.send(Ok(2)).expect("the load waits");
    assert_eq!((second.poll(), third.poll(), first.poll()), (None, None, None));
    open_a.send(Ok(1)).expect("the load waits");
    assert_eq!(first.poll(), Some(Ok(HashMap::from_iter([("a", 1)]))));
    let both = HashMap::from_iter([("a", 1), ("b", 2)]);
    assert_eq!(
        (second.poll(), third.poll()),
        (Some(Ok(both.clone())), Some(Ok(both)))
    );
}

#[test]
fn nothing_is_left_behind() {
    let cache = cache();
    let (gate, open) = Gate::new();
    let abandoned = Call::started(cache.get_or_load(&"a", || gate.load()));
    drop((abandoned, open));
    assert_eq!(
        now(cache.get_or_load(&"b", async || Err("down"))),
        Err(Arc::new("down"))
    );
    assert_eq!(now(cache.get_or_load(&"c", async || Ok(1))), Ok(1));
    assert!(cache.shared.lock().under_way.is_empty());
}
