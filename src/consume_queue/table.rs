//! The table of all queues of a store.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::entry_files::{QueueSizes, Shared, folder};
use super::queue::ConsumeQueue;
use crate::disk::{Listed, Storage};
use crate::error::Result;
use crate::format::names::is_folder_name;
use crate::message::check_that;
use crate::offset::QueueOffset;

type Topics = HashMap<Arc<str>, Topic>;

/// All queues by topic and number.
#[derive(Debug)]
pub(crate) struct QueueTable {
    shared: Arc<Shared>,
    topics: RwLock<Topics>,
}

#[derive(Debug, Default)]
struct Topic {
    is_batch: bool,
    queues: BTreeMap<i32, Arc<ConsumeQueue>>,
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
        let table = Self { shared: Shared::new(storage, root, new_dir, sizes)?, topics: RwLock::default() };
        let mut strays = Vec::new();
        for is_batch in [true, false] {
            table.list(is_batch, &mut strays)?;
        }
        Ok((table, strays))
    }

    fn list(&self, is_batch: bool, strays: &mut Vec<PathBuf>) -> Result<()> {
        let folder = self.shared.root.join(folder(is_batch));
        for Listed { name, info } in self.shared.storage.list(&folder)? {
            let dir = folder.join(&name);
            // A topic is of one kind, and RocketMQ takes a batch folder for what it says.
            if !info.is_dir || !is_folder_name(&name) || (!is_batch && self.is_batch(&name)) {
                strays.push(dir);
                continue;
            }
            if is_batch {
                self.mark_batch(&name);
            }
            for listed in self.shared.storage.list(&dir)? {
                let Some(queue_id) = queue_id(&listed) else {
                    strays.push(dir.join(listed.name));
                    continue;
                };
                let queue = self.get_or_create(&name, queue_id)?;
                let (files, others) = queue.files.list()?;
                strays.extend(others);
                queue.damaged.store(!files.iter().all(|file| queue.files.is_whole(file)), Ordering::Release);
            }
        }
        Ok(())
    }

    pub(crate) fn get(&self, topic: &str, queue_id: i32) -> Option<Arc<ConsumeQueue>> {
        self.read().get(topic)?.queues.get(&queue_id).cloned()
    }

    /// Returns a queue, in memory only if it is new. An error if the topic cannot be a folder's name.
    pub(crate) fn get_or_create(&self, topic: &str, queue_id: i32) -> Result<Arc<ConsumeQueue>> {
        if let Some(queue) = self.get(topic, queue_id) {
            return Ok(queue);
        }
        check_that("topic", is_folder_name(topic), "it cannot name a folder")?;
        let mut topics = self.write();
        let (name, topic) = entry(&mut topics, topic);
        let create = || Arc::new(ConsumeQueue::new(&self.shared, name, queue_id, topic.is_batch));
        Ok(Arc::clone(topic.queues.entry(queue_id).or_insert_with(create)))
    }

    /// Makes the queues of a topic batch queues. A topic that has plain queues stays as it is.
    pub(crate) fn mark_batch(&self, topic: &str) {
        let mut topics = self.write();
        let topic = entry(&mut topics, topic).1;
        topic.is_batch |= topic.queues.is_empty();
    }

    /// Forgets a topic whose queues never had a message and are in nobody's hands: one that was refused decides nothing.
    pub(crate) fn forget_unused(&self, topic: &str) {
        let is_unused = |queue: &Arc<ConsumeQueue>| {
            let end = queue.range().end.max(queue.cursor().next());
            Arc::strong_count(queue) == 1 && end == QueueOffset::ZERO
        };
        let mut topics = self.write();
        if topics.get(topic).is_some_and(|topic| topic.queues.values().all(is_unused)) {
            topics.remove(topic);
        }
    }

    pub(crate) fn is_batch(&self, topic: &str) -> bool {
        self.read().get(topic).is_some_and(|topic| topic.is_batch)
    }

    /// Returns all queues, by topic and number.
    pub(crate) fn all(&self) -> Vec<Arc<ConsumeQueue>> {
        let mut queues: Vec<_> = self.read().values().flat_map(|topic| topic.queues.values()).cloned().collect();
        queues.sort_by(|a, b| (a.topic(), a.queue_id()).cmp(&(b.topic(), b.queue_id())));
        queues
    }

    fn read(&self) -> RwLockReadGuard<'_, Topics> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Topics> {
        self.topics.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the one copy of a topic's name, and the topic, which may be new.
fn entry<'a>(topics: &'a mut Topics, topic: &str) -> (Arc<str>, &'a mut Topic) {
    let name = topics.get_key_value(topic).map_or_else(|| topic.into(), |(name, _)| Arc::clone(name));
    (Arc::clone(&name), topics.entry(name).or_default())
}

/// Returns the number that names a queue's folder, written as RocketMQ does.
fn queue_id(listed: &Listed) -> Option<i32> {
    let id: i32 = listed.name.parse().ok().filter(|_| listed.info.is_dir)?;
    (id.to_string() == listed.name).then_some(id)
}
