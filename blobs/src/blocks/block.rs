//! A block of bytes; a whole one begins at an address that disks are written from without a copy.

/// What disks and file systems that let their cache be passed by want addresses, offsets and lengths to be a multiple
/// of, at most: the size of a page, and of a sector of most disks.
pub(crate) const ALIGNMENT: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Behind what brings its beginning to [`ALIGNMENT`].
    padded: Vec<u8>,
    start: usize,
}

impl Block {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.padded[self.start..]
    }

    pub(crate) fn clear(&mut self) {
        self.padded.truncate(self.start);
    }

    /// Adds bytes. When there is no room for them, room for `capacity` is made, which must be enough for all.
    pub(crate) fn push(&mut self, bytes: &[u8], capacity: usize) {
        if self.padded.capacity() - self.padded.len() < bytes.len() {
            self.make_room(capacity);
        }
        self.padded.extend_from_slice(bytes);
    }

    fn make_room(&mut self, capacity: usize) {
        // What is smaller than a page is not written past the cache.
        let padding = if capacity < ALIGNMENT { 0 } else { ALIGNMENT - 1 };
        let mut padded = Vec::<u8>::with_capacity(capacity + padding);
        let start = if padding == 0 {
            0
        } else {
            padded.as_ptr().align_offset(ALIGNMENT)
        };
        padded.resize(start, 0);
        padded.extend_from_slice(self.bytes());
        *self = Self { padded, start };
    }
}
