//! The file of an upload, and how bytes are written to it.
//!
//! What lies beyond its first bytes is written past the kernel's cache (`O_DIRECT`) where the file system lets it: the
//! kernel has half of the work, and what others read is not driven out (docs/PERFORMANCE.md has what it gives).

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

use parking_lot::Mutex;

use crate::blocks::ALIGNMENT;

/// Pictures stay in the cache: everybody in the chat fetches one within a second or two. What is larger is fetched
/// slower than a disk reads, and is in the cache once the first has fetched it.
const CACHED_BYTES: u64 = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct DataFile {
    file: File,
    past_cache: Mutex<PastCache>,
}

/// Whether writes go past the cache now.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PastCache {
    Off,
    On,
    /// The file system or the disk refuses it.
    Never,
}

impl DataFile {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            past_cache: Mutex::new(PastCache::Off),
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of it. One at a time; others wait.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut past_cache = self.past_cache.lock();
        let wanted = offset >= CACHED_BYTES && is_aligned(bytes, offset);
        match (*past_cache, wanted) {
            (PastCache::Off, true) => {
                let on = set(&self.file, true);
                *past_cache = on.map_or(PastCache::Never, |()| PastCache::On);
            }
            (PastCache::On, false) => {
                set(&self.file, false)?;
                *past_cache = PastCache::Off;
            }
            _ => {}
        }
        self.write_as(&mut past_cache, bytes, offset)
    }

    fn write_as(&self, past_cache: &mut PastCache, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.file.write_all_at(bytes, offset) {
            // A disk with larger sectors, or the rest of what was not written in one.
            Err(error) if error.kind() == ErrorKind::InvalidInput && *past_cache == PastCache::On => {
                set(&self.file, false)?;
                *past_cache = PastCache::Never;
                self.file.write_all_at(bytes, offset)
            }
            written => written,
        }
    }
}

fn is_aligned(bytes: &[u8], offset: u64) -> bool {
    offset.is_multiple_of(ALIGNMENT as u64)
        && bytes.len().is_multiple_of(ALIGNMENT)
        && bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

#[cfg(target_os = "linux")]
fn set(file: &File, past_cache: bool) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    let mut flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_DIRECT, past_cache);
    fcntl(file, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Other systems have no such flag.
#[cfg(not(target_os = "linux"))]
fn set(_file: &File, past_cache: bool) -> io::Result<()> {
    if past_cache {
        return Err(ErrorKind::Unsupported.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = ALIGNMENT;

    fn data_file() -> DataFile {
        DataFile::new(tempfile::tempfile().expect("the temporary folder is writable"))
    }

    /// Pages of 1, 2, 3 and so on, the first of which begins at an aligned address.
    fn with_pages(count: usize, work: impl FnOnce(&[u8])) {
        let mut bytes = vec![0; (count + 1) * PAGE];
        let start = bytes.as_ptr().align_offset(PAGE);
        let pages = &mut bytes[start..start + count * PAGE];
        for (number, page) in pages.chunks_mut(PAGE).enumerate() {
            page.fill(number as u8 + 1);
        }
        work(pages);
    }

    #[test]
    fn what_is_aligned_goes_past_the_cache_and_the_rest_does_not() {
        with_pages(4, |pages| {
            let data = data_file();
            let past = || *data.past_cache.lock();
            data.write(pages, 0).expect("there is room");
            assert_eq!(past(), PastCache::Off, "the first bytes stay in the cache");
            data.write(pages, CACHED_BYTES).expect("there is room");
            if past() == PastCache::Never {
                eprintln!("SKIPPED: the temporary folder's file system has no such writes");
                return;
            }
            assert_eq!(past(), PastCache::On);
            let end = CACHED_BYTES + pages.len() as u64;
            data.write(&pages[..77], end).expect("there is room");
            assert_eq!(past(), PastCache::Off, "of an odd length");
            data.write(&pages[1..], end + 77).expect("there is room");
            assert_eq!(past(), PastCache::Off, "at an odd offset");
            data.write(&pages[1..=PAGE], end + PAGE as u64)
                .expect("there is room");
            assert_eq!(past(), PastCache::Off, "from an odd address");
            data.write(pages, end + 2 * PAGE as u64).expect("there is room");
            assert_eq!(past(), PastCache::On);

            let mut found = vec![0; 6 * PAGE];
            set(&data.file, false).expect("it was off before");
            data.file.read_exact_at(&mut found, end).expect("it is there");
            let mut expected = vec![0; 6 * PAGE];
            expected[..77].copy_from_slice(&pages[..77]);
            expected[77..77 + pages.len() - 1].copy_from_slice(&pages[1..]);
            expected[PAGE..2 * PAGE].copy_from_slice(&pages[1..=PAGE]);
            expected[2 * PAGE..].copy_from_slice(pages);
            assert!(found == expected);
        });
    }

    /// The kernel refuses what is not aligned, as a disk with larger sectors would refuse what is.
    #[test]
    fn what_is_refused_is_written_through_the_cache() {
        with_pages(1, |pages| {
            let data = data_file();
            if let Err(error) = set(&data.file, true) {
                eprintln!("SKIPPED: the temporary folder's file system has no such writes: {error}");
                return;
            }
            let mut past_cache = PastCache::On;
            data.write_as(&mut past_cache, &pages[1..], 1)
                .expect("there is room");
            assert_eq!(past_cache, PastCache::Never);
            let mut found = vec![0; PAGE - 1];
            data.file.read_exact_at(&mut found, 1).expect("it is there");
            assert!(found == pages[1..]);
            *data.past_cache.lock() = past_cache;
            data.write(pages, CACHED_BYTES).expect("there is room");
            assert_eq!(*data.past_cache.lock(), PastCache::Never, "it is not tried again");
        });
    }
}
