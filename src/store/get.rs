//! Getting messages from a queue, with RocketMQ's answers.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{MessageStore, Shared};
use crate::commit_log::Reader;
use crate::consume_queue::{ConsumeQueue, QueueItem};
use crate::dispatch::{Selection, name_of};
use crate::error::{Error, Result};
use crate::format::java_hash::tags_code;
use crate::format::properties::SCHEDULE_TOPIC;
use crate::offset::QueueOffset;
use crate::view::MessageView;

/// RocketMQ looks at no more than this many bytes of queue entries for one get.
const SCAN_ENTRIES: usize = 16_000 / 20;
/// Entries are read in pieces of this many.
const READ_ENTRIES: usize = 64;

/// How a [`MessageStore::get`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GetStatus {
    /// There are messages.
    Found,
    /// The messages looked at do not pass the filter.
    NoMatchedMessage,
    /// The messages looked at are no longer in the log.
    MessageWasRemoving,
    /// The queue has no entry there although it should.
    OffsetFoundNull,
    /// The offset is beyond the end of the queue.
    OffsetOverflowBadly,
    /// The offset is the end of the queue: the next message will have it.
    OffsetOverflowOne,
    /// The offset is below the first message.
    OffsetTooSmall,
    /// There is no such queue; RocketMQ, where asking for a queue makes it, says [`NoMessageInQueue`](Self::NoMessageInQueue).
    NoMatchedQueue,
    /// The queue never had a message.
    NoMessageInQueue,
}

/// How much a [`MessageStore::get`] returns at most; the first message always.
///
/// # Examples
/// ```
/// use mqlog::{GetLimits, Message, MessageStore, QueueOffset, StoreOptions, TagFilter};
/// # let dir = tempfile::tempdir()?;
/// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
/// store.put(Message::new("orders"))?;
/// store.put(Message::new("orders"))?;
/// let one = GetLimits { max_messages: 1, ..GetLimits::default() };
/// assert_eq!(store.get("orders", 0, QueueOffset::ZERO, one, &TagFilter::all())?.messages.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetLimits {
    /// Number of messages; an inner batch is as many as it holds. Default 32.
    pub max_messages: usize,
    /// Bytes of their records. Default 256 KiB.
    pub max_bytes: usize,
}

impl Default for GetLimits {
    fn default() -> Self {
        Self { max_messages: 32, max_bytes: 256 * 1024 }
    }
}

/// Which messages a reader wants, by their tags.
///
/// # Examples
/// ```
/// use mqlog::TagFilter;
/// let filter = TagFilter::parse("paid || sent");
/// assert!(filter.accepts(Some("paid")) && !filter.accepts(Some("new")) && !filter.accepts(None));
/// assert!(TagFilter::parse("*").accepts(None));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagFilter {
    /// The tags, and their codes; `None`: everything.
    tags: Option<(BTreeSet<String>, BTreeSet<i64>)>,
}

impl TagFilter {
    /// Accepts everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Reads RocketMQ's subscription expression: tags separated by `||`; `*` or nothing for everything.
    #[must_use]
    pub fn parse(expression: &str) -> Self {
        let words = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let tags: BTreeSet<_> = words.map(str::to_owned).collect();
        let is_all = tags.is_empty() || tags.contains("*");
        let codes = tags.iter().map(|tag| tags_code(tag)).collect();
        Self { tags: (!is_all).then_some((tags, codes)) }
    }

    /// Does a message with these tags pass?
    #[must_use]
    pub fn accepts(&self, tags: Option<&str>) -> bool {
        self.tags.as_ref().is_none_or(|(wanted, _)| tags.is_some_and(|tags| wanted.contains(tags)))
    }

    /// Does every message pass?
    fn accepts_all(&self) -> bool {
        self.tags.is_none()
    }

    /// Can a message with this tags code pass?
    fn accepts_code(&self, code: i64) -> bool {
        self.tags.as_ref().is_none_or(|(_, codes)| codes.contains(&code))
    }
}

/// What a [`MessageStore::get`] returns.
#[derive(Debug, Clone)]
pub struct GetResult {
    /// How it ended.
    pub status: GetStatus,
    /// The messages, in the order of the queue.
    pub messages: Vec<MessageView>,
    /// Where to go on.
    pub next: QueueOffset,
    /// The queue's first offset and its end.
    pub range: Range<QueueOffset>,
}

impl GetResult {
    fn empty(status: GetStatus, next: QueueOffset, range: Range<QueueOffset>) -> Self {
        Self { status, messages: Vec::new(), next, range }
    }
}

/// What became of one queue entry.
pub(super) enum Fetched {
    Message(MessageView),
    /// Its record is no longer in the log.
    Gone,
    /// It does not fit its record, or there is none.
    Wrong,
}

impl MessageStore {
    /// Gets messages of a queue from an offset on, in order, that pass the filter.
    ///
    /// Never waits. An answer without messages says in its status why, and where to go on.
    ///
    /// # Errors
    /// - [`Error::Corrupt`] if a message is damaged in the log
    /// - [`Error::Io`] if a file cannot be read
    ///
    /// # Examples
    /// ```
    /// use mqlog::{GetLimits, GetStatus, Message, MessageStore, QueueOffset, StoreOptions, TagFilter};
    /// # let dir = tempfile::tempdir()?;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
    /// store.put(Message::new("orders").tags("new").body(b"1"))?;
    /// store.put(Message::new("orders").tags("paid").body(b"2"))?;
    /// let paid = TagFilter::parse("paid");
    /// let got = store.get("orders", 0, QueueOffset::ZERO, GetLimits::default(), &paid)?;
    /// assert_eq!((got.status, got.messages.len(), got.next), (GetStatus::Found, 1, QueueOffset::new(2)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Source
    /// RocketMQ's `DefaultMessageStore.getMessage`, which ends at the border of a queue file; this goes on.
    pub fn get(
        &self,
        topic: &str,
        queue_id: i32,
        from: QueueOffset,
        limits: GetLimits,
        filter: &TagFilter,
    ) -> Result<GetResult> {
        let zero = QueueOffset::ZERO;
        let Some(queue) = self.shared.find_queue(topic, queue_id)? else {
            return Ok(GetResult::empty(GetStatus::NoMatchedQueue, zero, zero..zero));
        };
        let wanted = limits.max_messages.clamp(1, 1 << 20) as u64;
        let last = from + (wanted - 1).min(QueueOffset::MAX - from.min(QueueOffset::MAX));
        self.shared.dispatch_for(&queue, from, last)?;
        let range = queue.range();
        let (status, next) = match from {
            _ if range.end == zero => (GetStatus::NoMessageInQueue, zero),
            _ if from < range.start => (GetStatus::OffsetTooSmall, range.start),
            _ if from == range.end => (GetStatus::OffsetOverflowOne, from),
            _ if from > range.end => (GetStatus::OffsetOverflowBadly, range.end),
            _ => (GetStatus::Found, from),
        };
        let mut result = match status {
            GetStatus::Found => self.shared.select(&queue, from, limits, filter)?,
            _ => GetResult::empty(status, next, range),
        };
        if !self.shared.log.is_grouped() {
            // Every message that has its place can be read, whether its entry is there already or not.
            result.range.end = result.range.end.max(queue.cursor().next());
        }
        Ok(result)
    }
}

impl Shared {
    /// Finds a queue that has, or will have, entries.
    pub(super) fn find_queue(&self, topic: &str, queue_id: i32) -> Result<Option<Arc<ConsumeQueue>>> {
        if let Some(queue) = self.queues.get(topic, queue_id) {
            return Ok(Some(queue));
        }
        // A log that somebody else wrote may have a queue that dispatch has not met yet.
        self.dispatch_for_reading()?;
        Ok(self.queues.get(topic, queue_id))
    }

    fn select(
        &self,
        queue: &Arc<ConsumeQueue>,
        from: QueueOffset,
        limits: GetLimits,
        filter: &TagFilter,
    ) -> Result<GetResult> {
        let mut result = GetResult::empty(GetStatus::NoMatchedMessage, from, queue.range());
        let budget = SCAN_ENTRIES.max(limits.max_messages);
        let (mut scanned, mut taken, mut bytes, mut repaired) = (0, 0, 0, false);
        let mut reader = self.log.reader();
        'entries: while scanned < budget {
            if result.next >= result.range.end {
                // A filter may ask for more than the number of messages wanted.
                self.dispatch_for(queue, result.next, result.next)?;
                result.range = queue.range();
                if result.next >= result.range.end {
                    break;
                }
            }
            // A filter may pass over most of them; without one each is a message.
            let left = limits.max_messages.max(1).saturating_sub(result.messages.len()).max(1);
            let wanted = if filter.accepts_all() { left } else { READ_ENTRIES };
            let items = self.read_entries(queue, result.next, wanted.min(READ_ENTRIES).min(budget - scanned))?;
            if items.is_empty() {
                let missing = result.messages.is_empty() && scanned == 0;
                if missing {
                    result.status = GetStatus::OffsetFoundNull;
                    // As RocketMQ: on with the next file of the queue. Not behind the end, where a message may come.
                    let per_file = u64::from(self.format.queue_file_entries);
                    result.next = (result.next + (per_file - result.next.get() % per_file)).min(result.range.end);
                }
                break;
            }
            for item in items {
                let is_full = taken + item.count as usize > limits.max_messages
                    || bytes + item.entry.record_bytes as usize > limits.max_bytes;
                if is_full && !result.messages.is_empty() {
                    break 'entries;
                }
                let after = item.queue_offset + u64::from(item.count);
                result.status = GetStatus::NoMatchedMessage;
                if filter.accepts_code(item.entry.tags_code) || queue.topic() == SCHEDULE_TOPIC {
                    let fetched = self.fetch(&mut reader, queue, &item);
                    if fetched.is_err() && !result.messages.is_empty() {
                        // What was found so far counts; the next get begins with the failure.
                        break 'entries;
                    }
                    match fetched? {
                        Fetched::Message(message) if filter.accepts(message.tags().as_deref()) => {
                            (taken, bytes) = (taken + item.count as usize, bytes + message.bytes().len());
                            result.messages.push(message);
                        }
                        Fetched::Message(_) => {}
                        Fetched::Gone => result.status = GetStatus::MessageWasRemoving,
                        Fetched::Wrong if repaired => return Err(self.no_record(queue, &item)),
                        Fetched::Wrong => {
                            self.rebuild(queue)?;
                            repaired = true;
                            result.range = queue.range();
                            continue 'entries;
                        }
                    }
                }
                scanned += 1;
                result.next = after;
            }
        }
        if !result.messages.is_empty() {
            result.status = GetStatus::Found;
        }
        Ok(result)
    }

    /// Reads entries of a queue; damaged ones are repaired first.
    pub(super) fn read_entries(&self, queue: &ConsumeQueue, from: QueueOffset, max: usize) -> Result<Vec<QueueItem>> {
        match queue.read(from, max) {
            Err(Error::Corrupt(_)) => {
                self.rebuild(queue)?;
                queue.read(from, max)
            }
            items => items,
        }
    }

    /// Reads the record of a queue entry, if it is the one that the entry is about.
    pub(super) fn fetch(&self, reader: &mut Reader, queue: &ConsumeQueue, item: &QueueItem) -> Result<Fetched> {
        let at = crate::LogOffset::new(item.entry.log_offset);
        let message = match self.log.read_with(reader, at) {
            Ok(message) => message,
            Err(Error::OutOfRange { .. }) => {
                // A deletion gets to the queues after the log; both are asked in the order in which it ends.
                let is_gone = self.is_going.load(Ordering::Acquire) || queue.range().start > item.queue_offset;
                let is_deleted = at < self.log.range().start && is_gone;
                return Ok(if is_deleted { Fetched::Gone } else { Fetched::Wrong });
            }
            // No record begins there: the log is damaged, or else the entry is wrong.
            Err(Error::Corrupt(_)) => match self.log.damage_at(at)? {
                Some(corruption) => return Err(Error::Corrupt(corruption)),
                None => return Ok(Fetched::Wrong),
            },
            Err(error) => return Err(error),
        };
        let fits = self.dispatcher.is_entry_of(&message.record(), (queue.topic(), queue.queue_id()), item);
        Ok(if fits { Fetched::Message(message) } else { Fetched::Wrong })
    }

    fn no_record(&self, queue: &ConsumeQueue, item: &QueueItem) -> Error {
        let range = item.entry.log_offset..item.entry.log_offset + u64::from(item.entry.record_bytes);
        let reason =
            format!("message {} of queue {}/{} is not there", item.queue_offset, queue.topic(), queue.queue_id());
        Error::Corrupt(crate::Corruption { path: self.side.root().join("commitlog"), range, reason })
    }

    /// Compares a queue with the log, because an entry did not fit its record.
    pub(super) fn rebuild(&self, queue: &ConsumeQueue) -> Result<()> {
        self.rebuilt.fetch_add(1, Ordering::Relaxed);
        // Dispatch stands still meanwhile: it must not append to a queue that begins anew.
        let cursor = self.dispatcher.pause()?;
        let selection = Selection { queues: Some([name_of(queue)].into()), index: false };
        let (range, end) = (self.log.range().start..cursor.at, queue.range().end);
        self.dispatcher.compare(&selection, range, &mut |_| Ok(()))?;
        // The log may have lost records since it was opened; their offsets were given out.
        queue.keep_end(end, cursor.at.get()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::Drive;
    use crate::message::Message;
    use crate::options::StoreOptions;
    use crate::progress::lock;

    #[test]
    fn messages_whose_files_have_just_gone_are_being_removed() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(dir.path()).log_file_bytes(4096).drive(Drive::Manual);
        let store = MessageStore::open(options).unwrap();
        for _ in 0..SCAN_ENTRIES + 100 {
            store.put(Message::new("t")).unwrap();
        }
        let end = store.flush().unwrap();
        store.topics().unwrap();
        // A deletion begins with the log's files; this reader comes before it gets to the queues.
        store.shared.is_going.store(true, Ordering::Release);
        store.shared.log.delete_before(end).unwrap();
        let get = |from| store.get("t", 0, from, GetLimits::default(), &TagFilter::all()).unwrap();
        let got = get(QueueOffset::ZERO);
        let next = QueueOffset::new(SCAN_ENTRIES as u64);
        assert_eq!((got.status, got.messages.len(), got.next), (GetStatus::MessageWasRemoving, 0, next));
        assert_eq!(get(next).status, GetStatus::Found);
    }

    /// A reader that had an entry of the last messages of a queue in hand when they were deleted had the queue built anew.
    #[test]
    fn an_entry_of_an_emptied_queue_is_gone_and_not_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(dir.path()).log_file_bytes(4096).drive(Drive::Manual);
        let store = MessageStore::open(options).unwrap();
        store.put(Message::new("few")).unwrap();
        (0..100).for_each(|_| _ = store.put(Message::new("many")).unwrap());
        let end = store.flush().unwrap();
        let items = store.queue("few", 0).entries(QueueOffset::ZERO, 1).unwrap();
        store.delete_before(end).unwrap();
        let queue = store.shared.queues.get("few", 0).unwrap();
        assert!(queue.range().is_empty());
        let fetched = store.shared.fetch(&mut store.shared.log.reader(), &queue, &items[0]).unwrap();
        assert!(matches!(fetched, Fetched::Gone));
    }

    /// An entry that points to where the log was before a deletion counted as deleted while somebody verified the store.
    #[test]
    fn a_wrong_entry_is_not_gone_because_nothing_may_be_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(dir.path()).log_file_bytes(4096).drive(Drive::Manual);
        let store = MessageStore::open(options).unwrap();
        (0..100).for_each(|_| _ = store.put(Message::new("t")).unwrap());
        assert!(store.delete_before(store.flush().unwrap()).unwrap() > 0);
        let queue = store.shared.queues.get("t", 0).unwrap();
        let mut item = queue.read(queue.range().start, 1).unwrap()[0];
        item.entry.log_offset = 0;
        let _verifying = lock(&store.shared.deleting);
        let fetched = store.shared.fetch(&mut store.shared.log.reader(), &queue, &item).unwrap();
        assert!(matches!(fetched, Fetched::Wrong));
    }

    #[test]
    fn the_last_message_looked_at_decides_the_status() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(dir.path()).log_file_bytes(4096).drive(Drive::Manual);
        let store = MessageStore::open(options).unwrap();
        for tag in ["a", "b"] {
            (0..100).for_each(|_| _ = store.put(Message::new("t").tags(tag)).unwrap());
        }
        store.flush().unwrap();
        store.topics().unwrap();
        let middle = store.queue("t", 0).iter_from(QueueOffset::new(90)).next().unwrap().unwrap().log_offset();
        store.shared.is_going.store(true, Ordering::Release);
        store.shared.log.delete_before(middle).unwrap();
        let get = |from, tag| {
            let limits = GetLimits { max_messages: 1, ..GetLimits::default() };
            let got = store.get("t", 0, QueueOffset::new(from), limits, &TagFilter::parse(tag)).unwrap();
            (got.status, got.next.get())
        };
        assert_eq!(get(0, "none"), (GetStatus::NoMatchedMessage, 200));
        assert_eq!(get(0, "a").0, GetStatus::Found, "those behind the files that went");
    }

    #[test]
    fn where_a_queue_has_only_fillers_a_get_goes_on_behind_them() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(dir.path()).queue_file_entries(8).drive(Drive::Manual);
        let store = MessageStore::open(options).unwrap();
        (0..3).for_each(|_| _ = store.put(Message::new("t")).unwrap());
        store.topics().unwrap();
        store.shared.queues.get("t", 0).unwrap().skip_to(QueueOffset::new(20), 1 << 20).unwrap();
        let get = |from| {
            let got = store.get("t", 0, QueueOffset::new(from), GetLimits::default(), &TagFilter::all()).unwrap();
            (got.status, got.messages.len(), got.next.get())
        };
        assert_eq!(get(0), (GetStatus::Found, 3, 3));
        assert_eq!(get(3), (GetStatus::OffsetFoundNull, 0, 8), "the next file");
        assert_eq!(get(17), (GetStatus::OffsetFoundNull, 0, 20), "the end");
        assert_eq!(get(20).0, GetStatus::OffsetOverflowOne);
    }
}
