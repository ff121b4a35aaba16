//! A bounded cache of open files, shared by all queues.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::disk::File;
use crate::error::Result;
use crate::progress::lock;

/// The number of a queue in its table, and the number of a file in its queue.
pub(super) type Key = (u32, u64);

/// Open files; when there are too many, the one used longest ago is closed.
#[derive(Debug)]
pub(super) struct Handles {
    limit: usize,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// Each with the time of its last use.
    files: HashMap<Key, (File, u64)>,
    /// Counts uses.
    time: u64,
    /// Counts calls of `forget`: what was opened before one may be a file that is gone.
    forgotten: u64,
}

impl Handles {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), cache: Mutex::default() }
    }

    /// Returns the open file, or opens it without holding the lock.
    pub(super) fn get_or_open(&self, key: Key, open: impl FnOnce() -> Result<File>) -> Result<File> {
        let forgotten = {
            let cache = &mut *lock(&self.cache);
            cache.time += 1;
            if let Some((file, used)) = cache.files.get_mut(&key) {
                *used = cache.time;
                return Ok(file.clone());
            }
            cache.forgotten
        };
        let file = open()?;
        let cache = &mut *lock(&self.cache);
        if cache.forgotten == forgotten {
            if cache.files.len() >= self.limit {
                let oldest = cache.files.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
                oldest.and_then(|oldest| cache.files.remove(&oldest));
            }
            cache.files.insert(key, (file.clone(), cache.time));
        }
        Ok(file)
    }

    /// Closes a file after it was removed.
    pub(super) fn forget(&self, key: Key) {
        let mut cache = lock(&self.cache);
        cache.forgotten += 1;
        cache.files.remove(&key);
    }
}
