//! Checking a store as a whole: the log, and queues and index against it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use super::MessageStore;
use super::get::Fetched;
use crate::commit_log::ScanItem;
use crate::dispatch::for_each_target;
use crate::error::{Corruption, Error, Result};
use crate::format::java_hash::index_key_hash;
use crate::format::record::Transaction;
use crate::index_file::Entries;
use crate::offset::LogOffset;
use crate::progress::lock;
use crate::view::MessageView;

/// Entries are read in pieces of this many.
const RUN: usize = 512;

/// What [`MessageStore::verify`] counted and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Whole records in the log.
    pub records: u64,
    /// Queue entries that were compared with their records.
    pub queue_entries: u64,
    /// Keys of records that were looked up in the index.
    pub index_entries: u64,
    /// Everything that is wrong, in the order of the log, then by queue; the range of a queue's damage counts messages.
    pub damages: Vec<Corruption>,
}

impl VerifyReport {
    fn add(&mut self, path: PathBuf, range: Range<u64>, reason: impl Into<String>) {
        self.damages.push(Corruption { path, range, reason: reason.into() });
    }
}

/// What a queue should hold.
#[derive(Debug, Default)]
struct Expected {
    entries: u64,
    range: Range<u64>,
}

impl MessageStore {
    /// Reads the whole log and compares every queue entry and key with it. What opening found and repaired counts as
    /// damage too, where the last session had ended well. What is put meanwhile is not looked at; who deletes
    /// waits for the end.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if a file cannot be read.
    ///
    /// # Examples
    /// ```
    /// use mqlog::{Message, MessageStore, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
    /// store.put(Message::new("orders").key("o-17"))?;
    /// let report = store.verify()?;
    /// assert_eq!((report.records, report.queue_entries, report.index_entries), (1, 1, 1));
    /// assert!(report.damages.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify(&self) -> Result<VerifyReport> {
        let end = self.shared.log.visible_end();
        // First: it tells of arrivals, and with a lock held nobody is told anything.
        self.shared.dispatch_all()?;
        let _nothing_goes = lock(&self.shared.deleting);
        let mut report = VerifyReport::default();
        self.verify_opening(&mut report);
        let mut queues: BTreeMap<(String, i32), Expected> = BTreeMap::new();
        let mut index = self.shared.index.entries(self.shared.read_only)?;
        for item in self.shared.log.scan_thoroughly(LogOffset::ZERO) {
            match item? {
                ScanItem::Record(record) if record.log_offset() >= end => break,
                ScanItem::Record(record) => {
                    report.records += 1;
                    expect(&record, &mut queues);
                    self.verify_keys(&record, &mut index, &mut report)?;
                }
                ScanItem::Damaged(corruption) => {
                    self.hashes_at(LogOffset::new(corruption.range.start), &mut index, &mut report)?;
                    let last = LogOffset::new(corruption.range.end.saturating_sub(1));
                    while index.next_until(last)?.is_some() {}
                    if report.damages.iter().all(|known| known.range != corruption.range) {
                        report.damages.push(corruption);
                    }
                }
                ScanItem::Blank(_) => {}
            }
        }
        self.hashes_at(end, &mut index, &mut report)?;
        report.damages.append(&mut index.damages);
        for ((topic, queue_id), expected) in queues {
            self.verify_queue((&topic, queue_id), &expected, end, &mut report)?;
        }
        Ok(report)
    }

    fn verify_opening(&self, report: &mut VerifyReport) {
        // What was deleted since is damaged no more.
        let start = self.log_range().start.get();
        let is_left = |damage: &&Corruption| damage.range.start >= start || damage.range.end > start;
        report.damages.extend(self.report.corruptions.iter().filter(is_left).cloned());
        let root = self.shared.side.root();
        for at in &self.report.repaired_blanks {
            let range = at.get()..at.get() + 8;
            report.add(root.join("commitlog"), range, "an end-of-file blank had a wrong field");
        }
        if !self.report.clean {
            return;
        }
        for (topic, queue_id) in &self.report.queues_repaired {
            let queue = self.shared.queues.get(topic, *queue_id).map(|queue| queue.range()).unwrap_or_default();
            let (path, range) = (self.queue_dir(topic, *queue_id), queue.start.get()..queue.end.get());
            report.add(path, range, "some of the queue's entries, or its files, were not as the log says");
        }
        if self.report.index_rebuilt && !self.report.foreign_writer {
            let log = self.report.log.start.get()..self.report.log.end.get();
            report.add(root.join("index"), log, "the index files were not those of the last checkpoint");
        }
    }

    fn queue_dir(&self, topic: &str, queue_id: i32) -> PathBuf {
        self.shared.side.root().join("consumequeue").join(topic).join(queue_id.to_string())
    }

    /// The hashes that the index has for a record. An index entry before it without a record is damage, unless the
    /// record is gone.
    fn hashes_at(&self, at: LogOffset, index: &mut Entries, report: &mut VerifyReport) -> Result<Vec<u32>> {
        let (log, mut found) = (&self.shared.log, Vec::new());
        while let Some((offset, hash)) = index.next_until(at)? {
            if offset == at {
                found.push(hash);
            } else if offset >= log.range().start {
                let (path, range) = (self.shared.side.root().join("index"), offset.get()..offset.get());
                report.add(path, range, "an index entry belongs to no record");
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Compares a record's keys with the entries that the index has for it.
    fn verify_keys(&self, record: &MessageView, index: &mut Entries, report: &mut VerifyReport) -> Result<()> {
        let at = record.log_offset();
        let found = self.hashes_at(at, index, report)?;
        let topic = record.topic();
        let is_indexed = record.sys_flag().transaction() != Transaction::Rollback;
        let keys = record.unique_key().into_iter().chain(record.keys()).filter(|_| is_indexed);
        let mut expected: Vec<u32> = keys.map(|key| index_key_hash(&topic, &key)).collect();
        expected.sort_unstable();
        if found != expected && at >= index.gone {
            let (path, range) = (self.shared.side.root().join("index"), at.get()..record.end().get());
            report.add(path, range, "the index does not have just the record's keys");
        }
        report.index_entries += found.len() as u64;
        Ok(())
    }

    /// Compares a queue's entries for the log below `end` with their records.
    fn verify_queue(
        &self,
        (topic, queue_id): (&str, i32),
        expected: &Expected,
        end: LogOffset,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let path = self.queue_dir(topic, queue_id);
        let mut reader = self.shared.log.reader();
        let Some(queue) = self.shared.queues.get(topic, queue_id) else {
            report.add(path, expected.range.clone(), "the queue is missing");
            return Ok(());
        };
        let (mut next, mut run, mut entries) = (queue.range().start, RUN, 0);
        // Another process may have deleted the first files while this one opened the store.
        let mut is_going = self.shared.read_only && next.get() > expected.range.start;
        while next < queue.range().end {
            let items = match queue.read(next, run) {
                // Another process has just deleted what is looked at.
                Err(Error::Corrupt(_)) if self.shared.read_only && queue.leave_out_missing()? => {
                    (next, is_going) = (next.max(queue.range().start), true);
                    continue;
                }
                // One of them is damaged: find out which.
                Err(Error::Corrupt(_)) if run > 1 => {
                    run = 1;
                    continue;
                }
                Err(Error::Corrupt(damage)) => {
                    report.add(path.clone(), next.get()..next.get() + 1, damage.reason);
                    (next, run) = (next + 1, RUN);
                    continue;
                }
                items => items?,
            };
            let Some(last) = items.last() else { break };
            next = last.queue_offset + u64::from(last.count);
            for item in items.iter().filter(|item| item.entry.log_offset < end.get()) {
                match self.shared.fetch(&mut reader, &queue, item) {
                    Ok(Fetched::Message(_)) => entries += 1,
                    // The damage of a record itself was found by the scan.
                    Err(Error::Corrupt(_)) => {}
                    Ok(Fetched::Gone | Fetched::Wrong) => {
                        let range = item.queue_offset.get()..item.queue_offset.get() + u64::from(item.count);
                        report.add(path.clone(), range, "an entry does not fit its record");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        report.queue_entries += entries;
        if (entries != expected.entries && !is_going) || queue.range().end.get() < expected.range.end {
            let reason = format!("the queue has {entries} entries, the log has {} for it", expected.entries);
            report.add(path, expected.range.clone(), reason);
        }
        Ok(())
    }
}

fn expect(record: &MessageView, queues: &mut BTreeMap<(String, i32), Expected>) {
    for_each_target(&record.record(), |target| {
        let queue = queues.entry((target.topic.into_owned(), target.queue_id)).or_default();
        if queue.entries == 0 {
            queue.range.start = target.queue_offset;
        }
        queue.entries += 1;
        queue.range.end = queue.range.end.max(target.queue_offset + u64::from(target.count));
    });
}
