//! A cache of what Postgres said, emptied key by key as the bus tells of changes.
//!
//! Its one promise: a call that begins after [`InvalidatedCache::invalidate`] returned never gets what was read
//! before it. A load that is under way then answers those who already wait for it and stores nothing.

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::{HashMap, HashMapExt as _};
use tokio::sync::watch;

use crate::database_error::DatabaseError;

/// A bounded cache with loads that are shared by all who wait for the same key. Cheap to clone; clones share all.
pub struct InvalidatedCache<K, V, E = DatabaseError> {
    shared: Arc<Shared<K, V, E>>,
}

struct Shared<K, V, E> {
    /// What was read, with the epoch in which it was.
    values: moka::sync::Cache<K, (u64, V)>,
    /// Guards the order of stores and invalidations. Never held while somebody else's code runs.
    loads: Mutex<Loads<K, V, E>>,
}

struct Loads<K, V, E> {
    /// Grows with each clear: what is of another epoch is not there.
    epoch: u64,
    /// Names the next load.
    next: u64,
    /// The loads that may still store. An invalidation takes the key's load out, and thus the right to store.
    under_way: HashMap<K, Load<V, E>>,
}

struct Load<V, E> {
    number: u64,
    outcome: OutcomeReceiver<V, E>,
}

/// How a load ended for one key. Without one the load was cancelled, and whoever waits loads for themself.
enum Outcome<V, E> {
    Loaded(V),
    Absent,
    Failed(Arc<E>),
}

impl<V: Clone, E> Clone for Outcome<V, E> {
    fn clone(&self) -> Self {
        match self {
            Self::Loaded(value) => Self::Loaded(value.clone()),
            Self::Absent => Self::Absent,
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
        }
    }
}

type Waiting<K, V, E> = Vec<(K, OutcomeReceiver<V, E>)>;
type OutcomeSender<V, E> = watch::Sender<Option<Outcome<V, E>>>;
type OutcomeReceiver<V, E> = watch::Receiver<Option<Outcome<V, E>>>;

impl<K, V, E> InvalidatedCache<K, V, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// At most about `entries_max` values, each for at most `age_max`: the last resort against an invalidation
    /// that never came.
    pub fn new(entries_max: u64, age_max: Duration) -> Self {
        let values = moka::sync::Cache::builder()
            .max_capacity(entries_max)
            .time_to_live(age_max)
            .build();
        let loads = Loads {
            epoch: 0,
            next: 0,
            under_way: HashMap::new(),
        };
        Self {
            shared: Arc::new(Shared {
                values,
                loads: Mutex::new(loads),
            }),
        }
    }

    /// The value, if it is here.
    pub fn get(&self, key: &K) -> Option<V> {
        self.shared.stored(self.shared.lock().epoch, key)
    }

    /// The value, loaded if it is not here. Callers who want the same key at once share one load, and its error.
    /// Called again only if the caller whose load it was went away in the middle of it.
    pub async fn get_or_load<F>(&self, key: &K, mut load: impl FnMut() -> F) -> Result<V, Arc<E>>
    where
        F: Future<Output = Result<V, E>>,
    {
        let load = |keys: Vec<K>| {
            let loading = load();
            async move { Ok(keys.into_iter().zip([loading.await?]).collect()) }
        };
        let mut values = self.get_or_load_many(std::slice::from_ref(key), load).await?;
        Ok(values
            .remove(key)
            .expect("what was loaded has the key that was asked for"))
    }

    /// The values of all these keys, the missing ones loaded with one call (more only if another caller went away
    /// in the middle of theirs). A key that the load does not answer is absent here, and not remembered.
    pub async fn get_or_load_many<F>(
        &self,
        keys: &[K],
        mut load: impl FnMut(Vec<K>) -> F,
    ) -> Result<HashMap<K, V>, Arc<E>>
    where
        F: Future<Output = Result<HashMap<K, V>, E>>,
    {
        let mut values = HashMap::with_capacity(keys.len());
        let mut missing = keys.to_vec();
        while !missing.is_empty() {
            let (mut mine, others) = self.shared.take_up(std::mem::take(&mut missing), &mut values);
            if !mine.senders.is_empty() {
                let loaded = load(mine.senders.iter().map(|(key, ..)| key.clone()).collect()).await;
                mine.finish(loaded, &mut values)?;
            }
            // Only now, when nobody can be waiting for us: two callers never wait for each other.
            for (key, mut outcome) in others {
                let outcome = outcome
                    .wait_for(Option::is_some)
                    .await
                    .ok()
                    .and_then(|outcome| outcome.clone());
                match outcome {
                    Some(Outcome::Loaded(value)) => drop(values.insert(key, value)),
                    Some(Outcome::Absent) => {}
                    Some(Outcome::Failed(error)) => return Err(error),
                    None => missing.push(key),
                }
            }
        }
        Ok(values)
    }

    /// Stores what the caller knows better than any load that is under way.
    pub fn put(&self, key: K, value: V) {
        let mut loads = self.shared.lock();
        loads.under_way.remove(&key);
        self.shared.values.insert(key, (loads.epoch, value));
    }

    /// Forgets the key.
    pub fn invalidate(&self, key: &K) {
        let mut loads = self.shared.lock();
        loads.under_way.remove(key);
        self.shared.values.invalidate(key);
    }

    /// Forgets everything: when it is not known what was missed.
    pub fn clear(&self) {
        let mut loads = self.shared.lock();
        loads.epoch += 1;
        loads.under_way.clear();
        self.shared.values.invalidate_all();
    }

    /// About how many values are here, for metrics.
    pub fn entry_count(&self) -> u64 {
        self.shared.values.entry_count()
    }
}

impl<K, V, E> Clone for InvalidatedCache<K, V, E> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K, V, E> fmt::Debug for InvalidatedCache<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvalidatedCache").finish_non_exhaustive()
    }
}

impl<K, V, E> Shared<K, V, E> {
    fn lock(&self) -> MutexGuard<'_, Loads<K, V, E>> {
        // Nothing that panics runs under the lock, and each change of the map is whole.
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V, E> Shared<K, V, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn stored(&self, epoch: u64, key: &K) -> Option<V> {
        self.values
            .get(key)
            .filter(|(of, _)| *of == epoch)
            .map(|(_, value)| value)
    }

    /// Sorts the keys: those that are here go to `values`, those that somebody loads are to be waited for, and the
    /// rest are the caller's to load.
    fn take_up(&self, keys: Vec<K>, values: &mut HashMap<K, V>) -> (Mine<'_, K, V, E>, Waiting<K, V, E>) {
        let mut mine = Mine {
            shared: self,
            senders: Vec::new(),
        };
        let mut others = Vec::new();
        let mut loads = self.lock();
        for key in keys {
            if values.contains_key(&key) || mine.senders.iter().any(|(own, ..)| *own == key) {
                continue;
            }
            if let Some(value) = self.stored(loads.epoch, &key) {
                values.insert(key, value);
            } else if let Some(load) = loads.under_way.get(&key) {
                others.push((key, load.outcome.clone()));
            } else {
                let (sender, outcome) = watch::channel(None);
                let number = loads.next;
                loads.next += 1;
                loads.under_way.insert(key.clone(), Load { number, outcome });
                mine.senders.push((key, number, sender));
            }
        }
        (mine, others)
    }
}

/// The keys that one caller loads. Dropped early, by a caller who went away, it leaves them to those who wait.
struct Mine<'a, K, V, E>
where
    K: Eq + Hash,
{
    shared: &'a Shared<K, V, E>,
    senders: Vec<(K, u64, OutcomeSender<V, E>)>,
}

impl<K, V, E> Mine<'_, K, V, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Stores what may be stored, and tells everybody.
    fn finish(&mut self, loaded: Result<HashMap<K, V>, E>, values: &mut HashMap<K, V>) -> Result<(), Arc<E>> {
        let loaded = loaded.map_err(Arc::new);
        let mut loads = self.shared.lock();
        for (key, number, sender) in self.senders.drain(..) {
            let current = loads
                .under_way
                .get(&key)
                .is_some_and(|load| load.number == number);
            if current {
                loads.under_way.remove(&key);
            }
            let outcome = match &loaded {
                Ok(loaded) => loaded
                    .get(&key)
                    .map_or(Outcome::Absent, |value| Outcome::Loaded(value.clone())),
                Err(error) => Outcome::Failed(Arc::clone(error)),
            };
            if let Outcome::Loaded(value) = &outcome {
                if current {
                    self.shared
                        .values
                        .insert(key.clone(), (loads.epoch, value.clone()));
                }
                values.insert(key, value.clone());
            }
            // No receiver is no harm: an invalidation took the last one away, and nobody waits.
            sender.send_replace(Some(outcome));
        }
        loaded.map(|_| ())
    }
}

impl<K, V, E> Drop for Mine<'_, K, V, E>
where
    K: Eq + Hash,
{
    fn drop(&mut self) {
        let mut loads = self.shared.lock();
        for (key, number, _) in &self.senders {
            if loads
                .under_way
                .get(key)
                .is_some_and(|load| load.number == *number)
            {
                loads.under_way.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
