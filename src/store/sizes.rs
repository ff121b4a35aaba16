//! The sizes that the files of a store have: what most files of a kind say.

use std::path::Path;

use crate::commit_log::most_frequent;
use crate::disk::Storage;
use crate::error::Result;
use crate::format::index::IndexLayout;
use crate::format::names::{parse_index_name, parse_log_file_name};
use crate::format::queue_entry::{BatchEntry, QueueEntry};
use crate::index_file::detect_layout;
use crate::side::StoreFormat;

/// RocketMQ's index files.
const ROCKETMQ_LAYOUT: IndexLayout = IndexLayout { slots: 5_000_000, entries: 20_000_000 };

/// Replaces the wanted sizes of queue and index files by those that the files have.
pub(super) fn sizes_on_disk(storage: &Storage, root: &Path, sizes: &mut StoreFormat) -> Result<()> {
    let queues = most_frequent_length(storage, &root.join("consumequeue"), QueueEntry::BYTES as u64)?;
    sizes.queue_file_entries = queues.unwrap_or(sizes.queue_file_entries);
    let batches = most_frequent_length(storage, &root.join("batchconsumequeue"), BatchEntry::BYTES as u64)?;
    sizes.batch_queue_file_entries = batches.unwrap_or(sizes.batch_queue_file_entries);
    let dir = root.join("index");
    let mut files = storage.list(&dir)?;
    files.retain(|file| parse_index_name(&file.name).is_some());
    let usual = most_frequent(files.iter().map(|file| file.info.bytes));
    let usual = files.into_iter().filter(|file| Some(file.info.bytes) == usual);
    let paths: Vec<_> = usual.map(|file| dir.join(file.name)).collect();
    let wanted = IndexLayout { slots: sizes.index_slots, entries: sizes.index_entries };
    if let Some(layout) = detect_layout(storage, &paths, &[ROCKETMQ_LAYOUT, wanted])? {
        (sizes.index_slots, sizes.index_entries) = (layout.slots, layout.entries);
    }
    Ok(())
}

/// How many entries most of the queue files below `dir` have.
fn most_frequent_length(storage: &Storage, dir: &Path, entry_bytes: u64) -> Result<Option<u32>> {
    let mut lengths = Vec::new();
    for topic in storage.list(dir)?.into_iter().filter(|topic| topic.info.is_dir) {
        let topic_dir = dir.join(&topic.name);
        for queue in storage.list(&topic_dir)?.into_iter().filter(|queue| queue.info.is_dir) {
            let files = storage.list(&topic_dir.join(&queue.name))?.into_iter();
            lengths.extend(files.filter(|file| parse_log_file_name(&file.name).is_some()).map(|file| file.info.bytes));
        }
    }
    lengths.retain(|bytes| *bytes > 0 && bytes.is_multiple_of(entry_bytes));
    Ok(most_frequent(lengths).and_then(|bytes| u32::try_from(bytes / entry_bytes).ok()))
}
