//! A bounded cache of open files, shared by all queues.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::disk::File;
use crate::error::Result;

/// The number of a queue in its table, and the number of a file in its queue.
pub(super) type Key = (u32, u64);

/// Open files: the ones used longest ago are closed first, by second chance.
#[derive(Debug)]
pub(super) struct Handles {
    limit: usize,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    files: HashMap<Key, Slot>,
    order: VecDeque<Key>,
    /// Counts calls of `forget`: what was opened before one may be a file that is gone.
    forgotten: u64,
}

#[derive(Debug)]
struct Slot {
    file: File,
    used: bool,
}

impl Handles {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), cache: Mutex::default() }
    }

    /// Returns the open file, or opens it without holding the lock.
    pub(super) fn get_or_open(&self, key: Key, open: impl FnOnce() -> Result<File>) -> Result<File> {
        let forgotten = {
            let mut cache = self.cache();
            if let Some(slot) = cache.files.get_mut(&key) {
                slot.used = true;
                return Ok(slot.file.clone());
            }
            cache.forgotten
        };
        let file = open()?;
        let mut cache = self.cache();
        if cache.forgotten == forgotten {
            cache.insert(key, file.clone(), self.limit);
        }
        Ok(file)
    }

    /// Remembers a file that was just made.
    pub(super) fn insert(&self, key: Key, file: File) {
        self.cache().insert(key, file, self.limit);
    }

    /// Closes a file after it was removed.
    pub(super) fn forget(&self, key: Key) {
        let mut cache = self.cache();
        cache.forgotten += 1;
        if cache.files.remove(&key).is_some() {
            cache.order.retain(|other| *other != key);
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn insert(&mut self, key: Key, file: File, limit: usize) {
        if let Some(slot) = self.files.get_mut(&key) {
            slot.file = file;
            return;
        }
        while self.files.len() >= limit
            && let Some(oldest) = self.order.pop_front()
        {
            match self.files.get_mut(&oldest) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    self.order.push_back(oldest);
                }
                _ => drop(self.files.remove(&oldest)),
            }
        }
        self.files.insert(key, Slot { file, used: false });
        self.order.push_back(key);
    }
}
