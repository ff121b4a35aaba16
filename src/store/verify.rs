//! Checking a store as a whole: the log, and queues and index against it.

use std::collections::HashMap;
use std::ops::Range;

use super::MessageStore;
use super::get::Fetched;
use crate::commit_log::ScanItem;
use crate::dispatch::for_each_target;
use crate::error::{Corruption, Error, Result};
use crate::format::java_hash::index_key_hash;
use crate::format::record::Transaction;
use crate::index_file::Entries;
use crate::offset::{LogOffset, QueueOffset};
use crate::view::MessageView;

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

/// What a queue should hold.
#[derive(Debug, Default)]
struct Expected {
    entries: u64,
    first: Option<u64>,
    end: u64,
}

impl MessageStore {
    /// Reads the whole log and compares every queue entry and key with it. What opening found and repaired counts as
    /// damage too, where the last session had ended well.
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
        self.shared.dispatch_all()?;
        let mut report = VerifyReport::default();
        self.verify_opening(&mut report);
        let mut queues: HashMap<(String, i32), Expected> = HashMap::new();
        let mut index = self.shared.index.entries()?;
        for item in self.scan(LogOffset::ZERO) {
            match item? {
                ScanItem::Record(record) if record.log_offset() >= end => break,
                ScanItem::Record(record) => {
                    report.records += 1;
                    expect(&record, &mut queues);
                    self.verify_keys(&record, &mut index, &mut report)?;
                }
                ScanItem::Damaged(corruption) => {
                    let known = report.damages.iter().any(|known| known.range == corruption.range);
                    if !known {
                        report.damages.push(corruption);
                    }
                }
                ScanItem::Blank(_) => {}
            }
        }
        if end > LogOffset::ZERO {
            while let Some((offset, _)) = index.next_until(LogOffset::new(end.get() - 1))? {
                self.check_lone(offset, &mut report);
            }
        }
        report.damages.append(&mut index.damages);
        let mut queues: Vec<_> = queues.into_iter().collect();
        queues.sort_by(|a, b| a.0.cmp(&b.0));
        for ((topic, queue_id), expected) in queues {
            self.verify_queue(&topic, queue_id, &expected, &mut report)?;
        }
        Ok(report)
    }

    /// An index entry without a record is damage, unless the record is gone or damaged itself.
    fn check_lone(&self, offset: LogOffset, report: &mut VerifyReport) {
        let log = &self.shared.log;
        if offset >= log.range().start && log.known_damage(offset.get()).is_none() {
            let (path, range) = (self.shared.side.root().join("index"), offset.get()..offset.get());
            report.damages.push(Corruption { path, range, reason: "an index entry belongs to no record".to_owned() });
        }
    }

    fn verify_opening(&self, report: &mut VerifyReport) {
        report.damages.extend(self.report.corruptions.iter().cloned());
        let root = self.shared.side.root();
        for at in &self.report.repaired_blanks {
            let (path, range) = (root.join("commitlog"), at.get()..at.get() + 8);
            report.damages.push(Corruption {
                path,
                range,
                reason: "an end-of-file blank had a wrong field".to_owned(),
            });
        }
        if !self.report.clean {
            return;
        }
        for (topic, queue_id) in &self.report.queues_repaired {
            let path = root.join("consumequeue").join(topic).join(queue_id.to_string());
            let reason = "the queue's files were not as the log says".to_owned();
            report.damages.push(Corruption { path, range: 0..0, reason });
        }
        if self.report.index_rebuilt && !self.report.foreign_writer {
            let reason = "the index files were not those of the last checkpoint".to_owned();
            report.damages.push(Corruption { path: root.join("index"), range: 0..0, reason });
        }
    }

    /// Compares a record's keys with the entries that the index has for it.
    fn verify_keys(&self, record: &MessageView, index: &mut Entries, report: &mut VerifyReport) -> Result<()> {
        let at = record.log_offset();
        let mut found = Vec::new();
        while let Some((offset, hash)) = index.next_until(at)? {
            if offset == at {
                found.push(hash);
            } else {
                self.check_lone(offset, report);
            }
        }
        let topic = record.topic();
        let is_indexed = record.sys_flag().transaction() != Transaction::Rollback;
        let keys = record.unique_key().into_iter().chain(record.keys()).filter(|_| is_indexed);
        let mut expected: Vec<u32> = keys.map(|key| index_key_hash(&topic, &key)).collect();
        expected.sort_unstable();
        found.sort_unstable();
        if found != expected {
            let (path, range) = (self.shared.side.root().join("index"), at.get()..record.end().get());
            let reason = "the index does not have just the record's keys".to_owned();
            report.damages.push(Corruption { path, range, reason });
        }
        report.index_entries += found.len() as u64;
        Ok(())
    }

    fn verify_queue(&self, topic: &str, queue_id: i32, expected: &Expected, report: &mut VerifyReport) -> Result<()> {
        let path = self.shared.side.root().join("consumequeue").join(topic).join(queue_id.to_string());
        let wrong = |range: Range<u64>, reason: String| Corruption { path: path.clone(), range, reason };
        let Some(queue) = self.shared.find_queue(topic, queue_id)? else {
            let range = expected.first.unwrap_or(0)..expected.end;
            report.damages.push(wrong(range, "the queue is missing".to_owned()));
            return Ok(());
        };
        let (mut next, mut entries) = (queue.range().start, 0);
        while next < queue.range().end {
            let items = match queue.read(next, 512) {
                // One of them is damaged: find out which.
                Err(Error::Corrupt(_)) => queue.read(next, 1),
                items => items,
            };
            let items = match items {
                Err(Error::Corrupt(damage)) => {
                    report.damages.push(wrong(next.get()..next.get() + 1, damage.reason));
                    next = next + 1;
                    continue;
                }
                items => items?,
            };
            let Some(last) = items.last() else { break };
            next = last.queue_offset + u64::from(last.count);
            for item in &items {
                let range = item.queue_offset.get()..item.queue_offset.get() + u64::from(item.count);
                match self.shared.fetch(&queue, item) {
                    Ok(Fetched::Message(_)) => entries += 1,
                    // The damage of a record itself was found by the scan.
                    Ok(Fetched::Gone) | Err(Error::Corrupt(_)) => {}
                    Ok(Fetched::Wrong) => {
                        report.damages.push(wrong(range, "an entry does not fit its record".to_owned()));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        report.queue_entries += entries;
        let end = QueueOffset::new(expected.end);
        if entries != expected.entries || queue.range().end < end {
            let reason = format!("the queue has {entries} entries, the log has {} for it", expected.entries);
            report.damages.push(wrong(expected.first.unwrap_or(0)..expected.end, reason));
        }
        Ok(())
    }
}

fn expect(record: &MessageView, queues: &mut HashMap<(String, i32), Expected>) {
    for_each_target(&record.record(), |target| {
        let queue = queues.entry((target.topic.into_owned(), target.queue_id)).or_default();
        queue.entries += 1;
        queue.first.get_or_insert(target.queue_offset);
        queue.end = queue.end.max(target.queue_offset + u64::from(target.count));
    });
}
