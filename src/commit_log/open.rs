//! Opening a store's directory as far as the log goes: lock, what is known, inspection, verdict, settlement.
//!
//! Until the verdict nothing is written. Then, in this order: what somebody else's writing made worthless is removed,
//! the lock is marked as ours, "not closed cleanly" is noted, `abort` tells RocketMQ the same, and only then a file that
//! RocketMQ reads may change.

use std::io::ErrorKind;

use super::inspect::{Inspection, inspect};
use super::known::{Known, LogOptions, MAX_BODY_BYTES, Visit, file_bytes_on_disk};
use super::log::CommitLog;
use super::settle::DEFAULT_HOST;
use super::unit::{Appended, Buffers, Cursors, Unit, check_batch, light_queues};
use crate::disk::StoreLock;
use crate::error::{Error, Result};
use crate::format::record::{BLANK_BYTES, RecordCrc};
use crate::message::{Message, MessageLimits};
use crate::offset::QueueCursor;
use crate::side::{DerivedFile, MOST_DAMAGED, SideFolder, StoreFormat, create_abort, lower_checkpoint};

/// An open log, and what opening it found.
#[derive(Debug)]
pub(crate) struct OpenedLog {
    pub(crate) log: CommitLog,
    pub(crate) side: SideFolder,
    pub(crate) known: Known,
    /// What holds for this session.
    pub(crate) format: StoreFormat,
    pub(crate) found: Inspection,
    /// Did the last session close the store, and is its log as it was then? Then `format` on the disk still says so: who
    /// changes queues, index or log first takes it back.
    pub(crate) is_clean: bool,
}

/// Opens the log of the store in `options.root`.
pub(crate) fn open_log(options: &LogOptions, visit: Visit<'_>) -> Result<OpenedLog> {
    let storage = &options.storage;
    let side = SideFolder::new(storage.clone(), &options.root);
    let root = storage.info(&options.root)?;
    if options.read_only && !root.is_some_and(|root| root.is_dir) {
        let kind = if root.is_some() { ErrorKind::NotADirectory } else { ErrorKind::NotFound };
        return Err(Error::io("open", &options.root, None, kind.into()));
    }
    storage.create_dir_durably(&options.root)?;
    let lock = (!options.read_only).then(|| StoreLock::take(storage, &options.root)).transpose()?;
    let is_ours = || StoreLock::is_ours(storage, &options.root);
    let ours = lock.as_ref().map_or_else(is_ours, |lock| Ok(lock.was_ours()))?;
    let mut known = Known::load(&side, ours)?;
    if known.format.is_none() {
        // A session that was killed may have made the folder without getting as far as its name.
        storage.sync_name(&options.root)?;
    }
    let mut format = options.wanted.clone();
    if let Some(stored) = &known.format {
        format = StoreFormat { clean: false, ..stored.clone() };
    } else {
        format.log_file_bytes = file_bytes_on_disk(options)?.unwrap_or(format.log_file_bytes);
        (options.detect)(storage, &options.root, &mut format)?;
    }
    // No record ends in the last bytes of a file, so it is not mqlog that says so.
    let may_end_at = |offset: u64| format.log_file_bytes - offset % format.log_file_bytes >= BLANK_BYTES as u64;
    known.watermark = known.watermark.filter(|known| may_end_at(known.durable.get()));
    let found = inspect(options, &mut known, &format, visit)?;
    known.foreign &= !found.range().is_empty();
    if let Some(corruption) = found.corruptions.first().filter(|_| !options.salvage) {
        return Err(Error::Corrupt(corruption.clone()));
    }
    format.record_crc_from = match options.crc {
        RecordCrc::On => Some(found.crc_from.unwrap_or(found.tail)),
        RecordCrc::Off => None,
    };
    format.damaged.clone_from(&found.changed);
    format.damaged.sort_by_key(|range| (range.start, range.end));
    format.damaged.dedup();
    // What is deleted meanwhile is damaged no more, and appends use the offsets behind the tail anew.
    let (start, tail) = (found.range().start, found.tail.get());
    format.damaged.retain(|range| (start..tail).contains(&range.start));
    format.damaged.iter_mut().for_each(|range| range.end = range.end.min(tail));
    let forgotten = format.damaged.len().saturating_sub(MOST_DAMAGED);
    format.damaged.drain(..forgotten);
    let covered = known.derived.as_ref().is_some_and(|derived| derived.log_offset == found.tail);
    let is_clean = known.is_clean() && covered && found.torn.is_none();
    // From here on the store counts as written by us.
    if !ours {
        side.clear()?;
        lower_checkpoint(storage, &options.root)?;
    }
    side.create()?;
    side.empty_new()?;
    lock.iter().try_for_each(StoreLock::mark)?;
    // A promise is taken back when what is torn is cut: until then it tells a torn record from a whole one.
    let promised =
        StoreFormat { record_crc_from: format.record_crc_from.or(found.crc_from), clean: is_clean, ..format.clone() };
    if known.is_clean() && !is_clean {
        // A clean stop wrote a last frame; an older one knows nothing of the files as they are.
        DerivedFile::remove(&side)?;
        known.derived = None;
    }
    promised.save(&side)?;
    create_abort(storage, &options.root)?;
    let durable = known.watermark.map_or(0, |known| known.durable.get());
    let log = CommitLog::settle(options, &side, &format, &found, durable)?;
    if promised.record_crc_from != format.record_crc_from {
        StoreFormat { clean: is_clean, ..format.clone() }.save(&side)?;
    }
    log.keep_lock(lock);
    Ok(OpenedLog { log, side, known, format, found, is_clean })
}

impl CommitLog {
    /// Appends a message and moves its queue's cursor. Does not wait for the disk.
    ///
    /// # Errors
    /// - [`Error::InvalidMessage`] or [`Error::TooLarge`] if the message is not acceptable
    /// - [`Error::DiskFull`] if there are no blocks for it; nothing was written
    /// - [`Error::Poisoned`] or [`Error::Closed`] if the log takes no appends any more
    pub fn append(&self, message: &Message<'_>, cursor: &QueueCursor) -> Result<Appended> {
        Ok(self.append_all(&[message], cursor)?[0])
    }

    /// Appends messages of one queue as one batch, next to each other in one file, and moves the queue's cursor.
    ///
    /// # Errors
    /// Those of [`append`](Self::append); [`Error::InvalidMessage`] too if the messages differ in topic or queue, or one
    /// is part of a transaction, delayed or an inner batch.
    ///
    /// # Examples
    /// ```
    /// use mqlog::{CommitLog, Message, QueueCursor};
    /// # let dir = tempfile::tempdir()?;
    /// let log = CommitLog::open(dir.path(), 64 * 1024)?;
    /// let batch = [Message::new("orders").body(b"1"), Message::new("orders").body(b"2")];
    /// let appended = log.append_batch(&batch, &QueueCursor::default())?;
    /// assert_eq!(appended[1].log_offset, appended[0].end());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append_batch(&self, messages: &[Message<'_>], cursor: &QueueCursor) -> Result<Vec<Appended>> {
        let messages: Vec<&Message<'_>> = messages.iter().collect();
        check_batch(&messages, MAX_BODY_BYTES)?;
        if messages.is_empty() { Ok(Vec::new()) } else { self.append_all(&messages, cursor) }
    }

    fn append_all(&self, messages: &[&Message<'_>], cursor: &QueueCursor) -> Result<Vec<Appended>> {
        for message in messages {
            message.check(&MessageLimits {
                max_body_bytes: MAX_BODY_BYTES,
                max_topic_bytes: 127,
                crc: self.shared.crc,
            })?;
            if light_queues(message).next().is_some() {
                let reason = "light queues need a store".to_owned();
                return Err(Error::InvalidMessage { field: "INNER_MULTI_DISPATCH", reason });
            }
        }
        let mut unit = Unit::encode(messages, self.encoding(DEFAULT_HOST), Buffers::default())?;
        let mut appended = Vec::with_capacity(messages.len());
        self.append_unit(&mut unit, Cursors { queue: cursor, light: &[] }, true, &mut |record| appended.push(record))?;
        if self.shared.grouped {
            self.flush()?;
        }
        Ok(appended)
    }

    /// Makes everything durable and ends the log's use; other handles can still read.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush).
    pub fn close(self) -> Result<()> {
        // Appends first, or one could be accepted behind the last flush; the lock last.
        self.refuse_appends();
        let flushed = self.flush().and_then(|_| self.save_watermark());
        let shut = self.shut();
        self.keep_lock(None);
        flushed.and(shut)
    }

    /// Has the log keep the store's lock until its last handle goes, or give it back.
    pub(crate) fn keep_lock(&self, lock: Option<StoreLock>) {
        *self.shared.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = lock;
    }
}
