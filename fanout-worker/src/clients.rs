//! The active clients of users, cached until INVALIDATIONS says otherwise.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tidings_metadata::{DatabaseError, InvalidatedCache, Metadata};
use tidings_nats::Invalidation;
use tidings_protocol::{ClientId, UserId};
use tidings_service::Forget;

use crate::metrics::count_lookups;

/// About 200 bytes each.
const USERS_MAX: u64 = 200_000;
/// The last resort against an invalidation that was lost.
const AGE_MAX: Duration = Duration::from_mins(10);

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    metadata: Metadata,
    cache: InvalidatedCache<UserId, Arc<[ClientId]>>,
}

impl Clients {
    pub(crate) fn new(metadata: Metadata) -> Self {
        Self {
            metadata,
            cache: InvalidatedCache::new(USERS_MAX, AGE_MAX),
        }
    }

    /// What INVALIDATIONS says.
    pub(crate) fn forget(&self, forget: &Forget) {
        match forget {
            Forget::Everything => self.cache.clear(),
            Forget::One(Invalidation::User { user_id }) => self.cache.invalidate(user_id),
            // Participants are not taken from caches that this could concern.
            Forget::One(Invalidation::Chat { .. }) => {}
        }
    }

    /// The active clients of each user. That a user has none is never taken from the cache: it is what Postgres
    /// said after this was called.
    pub(crate) async fn of(
        &self,
        users: &[UserId],
    ) -> Result<HashMap<UserId, Arc<[ClientId]>>, Arc<DatabaseError>> {
        let mut loaded = 0;
        let clients = self.cache.get_or_load_many(users, |missing| {
            loaded += missing.len();
            self.load(missing)
        });
        let clients = clients.await;
        count_lookups("clients", users.len().saturating_sub(loaded), loaded);
        let mut clients = clients?;
        let without: Vec<UserId> = users
            .iter()
            .filter(|user| clients.get(*user).is_none_or(|clients| clients.is_empty()))
            .cloned()
            .collect();
        if !without.is_empty() {
            for user in &without {
                self.cache.invalidate(user);
            }
            clients.extend(self.load(without).await.map_err(Arc::new)?);
        }
        Ok(clients)
    }

    async fn load(&self, users: Vec<UserId>) -> Result<HashMap<UserId, Arc<[ClientId]>>, DatabaseError> {
        let clients = self.metadata.active_clients(&users).await?;
        Ok(clients
            .into_iter()
            .map(|(user, clients)| (user, clients.into()))
            .collect())
    }
}
