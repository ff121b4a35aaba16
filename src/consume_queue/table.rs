//! The table of all queues of a store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::entry_files::{Kind, Shared};
use super::queue::{ConsumeQueue, check_topic};
use crate::disk::{Listed, Storage};
use crate::error::{Error, Result};
use crate::format::names::parse_log_file_name;

/// The sizes of the queues' files, and how many of them are kept open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueSizes {
    pub(crate) queue_file_entries: u32,
    pub(crate) batch_queue_file_entries: u32,
    pub(crate) max_open_files: usize,
}

impl QueueSizes {
    pub(super) fn check(&self) -> Result<()> {
        if self.queue_file_entries > 0 && self.batch_queue_file_entries > 0 {
            return Ok(());
        }
        Err(Error::InvalidOption { option: "queue_file_entries", reason: "a file holds at least one entry".into() })
    }
}

/// All queues by topic and number.
#[derive(Debug)]
pub(crate) struct QueueTable {
    shared: Arc<Shared>,
    topics: RwLock<HashMap<Arc<str>, Topic>>,
}

#[derive(Debug, Default)]
struct Topic {
    is_batch: bool,
    /// In the order of their numbers.
    queues: Vec<Arc<ConsumeQueue>>,
}

impl Topic {
    fn find(&self, queue_id: i32) -> Result<usize, usize> {
        self.queues.binary_search_by_key(&queue_id, |queue| queue.queue_id())
    }
}

impl QueueTable {
    /// Lists the queues of the store in `root`, and the names that are none of ours. No entry is read: each queue is
    /// empty until it is restored or rebuilt. New files are made in `new_dir`.
    pub(crate) fn open(
        storage: Storage,
        root: &Path,
        new_dir: &Path,
        sizes: QueueSizes,
    ) -> Result<(Self, Vec<PathBuf>)> {
        sizes.check()?;
        let shared = Shared::new(storage, root.to_path_buf(), new_dir.to_path_buf(), sizes);
        let table = Self { shared, topics: RwLock::default() };
        let mut strays = Vec::new();
        for kind in [Kind::Batch, Kind::Plain] {
            table.list(kind, &mut strays)?;
        }
        Ok((table, strays))
    }

    fn list(&self, kind: Kind, strays: &mut Vec<PathBuf>) -> Result<()> {
        let folder = self.shared.root.join(kind.folder());
        for topic in self.shared.storage.list(&folder)? {
            let dir = folder.join(&topic.name);
            // A topic is of one kind, and RocketMQ takes a batch folder for what it says.
            if !topic.info.is_dir
                || check_topic(&topic.name).is_err()
                || (kind == Kind::Plain && self.is_batch(&topic.name))
            {
                strays.push(dir);
                continue;
            }
            if kind == Kind::Batch {
                self.mark_batch(&topic.name);
            }
            for queue in self.shared.storage.list(&dir)? {
                let path = dir.join(&queue.name);
                match queue_id(&queue) {
                    Some(id) => Self::look_at(&*self.get_or_create(&topic.name, id)?, &path, strays)?,
                    None => strays.push(path),
                }
            }
        }
        Ok(())
    }

    fn look_at(queue: &ConsumeQueue, dir: &Path, strays: &mut Vec<PathBuf>) -> Result<()> {
        for file in queue.files.shared().storage.list(dir)? {
            let bytes = queue.files.file_bytes();
            match parse_log_file_name(&file.name).filter(|_| !file.info.is_dir) {
                None => strays.push(dir.join(&file.name)),
                Some(base) if file.info.bytes == bytes && base.is_multiple_of(bytes) => {}
                Some(_) => queue.damaged.store(true, Ordering::Release),
            }
        }
        Ok(())
    }

    pub(crate) fn get(&self, topic: &str, queue_id: i32) -> Option<Arc<ConsumeQueue>> {
        let topics = self.read();
        let topic = topics.get(topic)?;
        topic.find(queue_id).ok().map(|index| Arc::clone(&topic.queues[index]))
    }

    /// Returns a queue, in memory only if it is new. An error if the topic cannot be a folder's name.
    pub(crate) fn get_or_create(&self, topic: &str, queue_id: i32) -> Result<Arc<ConsumeQueue>> {
        if let Some(queue) = self.get(topic, queue_id) {
            return Ok(queue);
        }
        check_topic(topic)?;
        let mut topics = self.write();
        let name = interned(&topics, topic);
        let topic = topics.entry(Arc::clone(&name)).or_default();
        let index = match topic.find(queue_id) {
            Ok(index) => return Ok(Arc::clone(&topic.queues[index])),
            Err(index) => index,
        };
        let kind = if topic.is_batch { Kind::Batch } else { Kind::Plain };
        let queue = Arc::new(ConsumeQueue::new(&self.shared, name, queue_id, kind));
        topic.queues.insert(index, Arc::clone(&queue));
        Ok(queue)
    }

    /// Makes the queues of a topic batch queues. A topic that has plain queues stays as it is.
    pub(crate) fn mark_batch(&self, topic: &str) {
        let mut topics = self.write();
        let name = interned(&topics, topic);
        let topic = topics.entry(name).or_default();
        topic.is_batch |= topic.queues.is_empty();
    }

    pub(crate) fn is_batch(&self, topic: &str) -> bool {
        self.read().get(topic).is_some_and(|topic| topic.is_batch)
    }

    /// Returns all queues, by topic and number.
    pub(crate) fn all(&self) -> Vec<Arc<ConsumeQueue>> {
        let mut queues: Vec<_> = self.read().values().flat_map(|topic| &topic.queues).cloned().collect();
        queues.sort_by(|a, b| (a.topic(), a.queue_id()).cmp(&(b.topic(), b.queue_id())));
        queues
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Arc<str>, Topic>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Arc<str>, Topic>> {
        self.topics.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the one copy of a topic's name.
fn interned(topics: &HashMap<Arc<str>, Topic>, topic: &str) -> Arc<str> {
    topics.get_key_value(topic).map_or_else(|| topic.into(), |(name, _)| Arc::clone(name))
}

/// Returns the number that names a queue's folder, written as RocketMQ does.
fn queue_id(listed: &Listed) -> Option<i32> {
    let id: i32 = listed.name.parse().ok().filter(|_| listed.info.is_dir)?;
    (id.to_string() == listed.name).then_some(id)
}
