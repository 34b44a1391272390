//! How many uploads and downloads there may be at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_protocol::UserId;

use crate::refusal::Refusal;

/// Downloads of one process. Each holds up to 1 MB that its socket has not taken yet.
const DOWNLOADS_MAX: usize = 2_048;
/// When to come back: most uploads are pictures.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The places of one process.
#[derive(Debug)]
pub(crate) struct Places {
    counts: Mutex<Counts>,
    uploads_max: usize,
    /// Absent: as many as the process has.
    user_uploads_max: Option<usize>,
}

#[derive(Debug, Default)]
struct Counts {
    uploads: usize,
    by_user: HashMap<UserId, usize>,
    downloads: usize,
}

/// A place of an upload, until it is dropped.
#[derive(Debug)]
pub(crate) struct UploadPlace {
    places: Arc<Places>,
    user: UserId,
}

/// A place of a download, until it is dropped.
#[derive(Debug)]
pub(crate) struct DownloadPlace(Arc<Places>);

impl Places {
    pub(crate) fn new(uploads_max: usize, user_uploads_max: Option<usize>) -> Self {
        Self {
            counts: Mutex::default(),
            uploads_max,
            user_uploads_max,
        }
    }

    /// A place to upload.
    pub(crate) fn upload(self: &Arc<Self>, user: &UserId) -> Result<UploadPlace, Refusal> {
        let mut counts = self.counts.lock();
        if counts.uploads >= self.uploads_max {
            return Err(Refusal::unavailable("too many uploads at once; try again").after(RETRY_AFTER));
        }
        let of_user = counts.by_user.get(user).copied().unwrap_or_default();
        if self.user_uploads_max.is_some_and(|max| of_user >= max) {
            let message = format!("this user has {of_user} uploads at once already");
            return Err(Refusal::limited(message, RETRY_AFTER));
        }
        counts.uploads += 1;
        counts.by_user.insert(user.clone(), of_user + 1);
        metrics::gauge!("tidings_media_uploads").set(counts.uploads as f64);
        Ok(UploadPlace {
            places: self.clone(),
            user: user.clone(),
        })
    }

    /// A place to download.
    pub(crate) fn download(self: &Arc<Self>) -> Result<DownloadPlace, Refusal> {
        let mut counts = self.counts.lock();
        if counts.downloads >= DOWNLOADS_MAX {
            return Err(Refusal::unavailable("too many downloads at once; try again").after(RETRY_AFTER));
        }
        counts.downloads += 1;
        metrics::gauge!("tidings_media_downloads").set(counts.downloads as f64);
        Ok(DownloadPlace(self.clone()))
    }
}

impl Drop for UploadPlace {
    fn drop(&mut self) {
        let mut counts = self.places.counts.lock();
        counts.uploads -= 1;
        metrics::gauge!("tidings_media_uploads").set(counts.uploads as f64);
        if let Some(count) = counts.by_user.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.by_user.remove(&self.user);
            }
        }
    }
}

impl Drop for DownloadPlace {
    fn drop(&mut self) {
        let mut counts = self.0.counts.lock();
        counts.downloads -= 1;
        metrics::gauge!("tidings_media_downloads").set(counts.downloads as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let (alice, bob) = (
            UserId::new("alice").expect("an id"),
            UserId::new("bob").expect("an id"),
        );
        let places = Arc::new(Places::new(3, Some(2)));
        let first = places.upload(&alice).expect("there is room");
        let _second = places.upload(&alice).expect("there is room");
        assert!(places.upload(&alice).is_err(), "one user has two");
        let third = places.upload(&bob).expect("another user");
        assert!(places.upload(&bob).is_err(), "three in all");
        drop(third);
        drop(first);
        let _third = places.upload(&alice).expect("one was given back");
        assert_eq!(places.counts.lock().by_user.len(), 1);
    }
}
