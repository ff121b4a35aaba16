//! Opening a store's directory as far as the log goes: lock, what is known, inspection, verdict, settlement.
//!
//! Until the verdict nothing is written. Then, in this order: what somebody else's writing made worthless is removed,
//! the lock is marked as ours, "not closed cleanly" is noted, `abort` tells RocketMQ the same, and only then a file that
//! RocketMQ reads may change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::inspect::{Inspection, Search, inspect};
use super::log::CommitLog;
use super::read::Rules;
use super::settle::{DEFAULT_HOST, LogUse};
use super::unit::{Appended, Cursors, Unit};
use crate::clock::{Clock, SystemClock};
use crate::disk::{OpenMode, Storage, StoreLock};
use crate::error::{Error, Result};
use crate::format::record::{RecordCrc, RecordView};
use crate::mapped_file::list_log_files;
use crate::message::{Message, MessageLimits};
use crate::offset::{LogOffset, QueueCursor};
use crate::side::{Derived, SideFolder, StoreFormat, Watermark, WatermarkFile, create_abort};

/// The smallest and largest length of a log file.
pub(crate) const LOG_FILE_BYTES: std::ops::RangeInclusive<u64> = 1024..=(1 << 30) * 2 - 1;
/// RocketMQ's limit for a body.
pub(crate) const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// How to open.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    pub(crate) storage: Storage,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) root: PathBuf,
    /// Sizes for a new store, and whether records get the CRC; what exists has its own sizes.
    pub(crate) wanted: StoreFormat,
    /// Finds the sizes of the other files where `mqlog/format` does not say.
    pub(crate) detect: fn(&Storage, &Path, &mut StoreFormat) -> Result<()>,
    pub(crate) crc: RecordCrc,
    pub(crate) grouped: bool,
    pub(crate) read_only: bool,
    /// Open although bytes are damaged, and keep them.
    pub(crate) salvage: bool,
}

/// What was known of the store before it was opened.
#[derive(Debug)]
pub(crate) struct Known {
    /// The log's files exist and somebody else wrote to the store since mqlog did.
    pub(crate) foreign: bool,
    pub(crate) format: Option<StoreFormat>,
    pub(crate) watermark: Option<Watermark>,
    pub(crate) derived: Option<Derived>,
}

impl Known {
    fn load(side: &SideFolder, ours: bool) -> Result<Self> {
        if !ours {
            return Ok(Self { foreign: true, format: None, watermark: None, derived: None });
        }
        let (format, watermark) = (StoreFormat::load(side)?, WatermarkFile::peek(side)?);
        Ok(Self { foreign: false, format, watermark, derived: Derived::load(side)? })
    }

    /// Did the last session close the store completely?
    pub(crate) fn is_clean(&self) -> bool {
        self.format.as_ref().is_some_and(|format| format.clean) && self.watermark.is_some() && self.derived.is_some()
    }
}

/// An open log, and what opening it found.
#[derive(Debug)]
pub(crate) struct OpenedLog {
    pub(crate) log: CommitLog,
    pub(crate) side: SideFolder,
    pub(crate) lock: Option<StoreLock>,
    pub(crate) known: Known,
    /// What holds for this session.
    pub(crate) format: StoreFormat,
    pub(crate) found: Inspection,
}

/// Opens the log of the store in `options.root`. `visit` sees every whole record that the derived files do not cover.
pub(crate) fn open_log(options: &LogOptions, visit: &mut dyn FnMut(&RecordView<'_>)) -> Result<OpenedLog> {
    let storage = &options.storage;
    let side = SideFolder::new(storage.clone(), &options.root);
    if options.read_only && storage.info(&options.root)?.is_none() {
        let missing = std::io::ErrorKind::NotFound.into();
        return Err(Error::io("open", &options.root, None, missing));
    }
    storage.create_dir_durably(&options.root)?;
    let lock = if options.read_only { None } else { Some(StoreLock::take(storage, &options.root)?) };
    let ours = match &lock {
        Some(lock) => lock.was_ours(),
        None => StoreLock::is_ours(storage, &options.root)?,
    };
    let mut known = Known::load(&side, ours)?;
    if known.format.is_none() {
        // A session that was killed may have made the folder without getting as far as its name.
        storage.sync_name(&options.root)?;
    }
    let dir = options.root.join("commitlog");
    let mut format = options.wanted.clone();
    if let Some(stored) = &known.format {
        format = StoreFormat { clean: false, ..stored.clone() };
    } else {
        format.log_file_bytes = file_bytes_on_disk(storage, &dir)?.unwrap_or(format.log_file_bytes);
        (options.detect)(storage, &options.root, &mut format)?;
    }
    let rules = Rules { crc_from: format.record_crc_from.filter(|_| known.format.is_some()) };
    let visit_from = known.derived.as_ref().map_or(LogOffset::ZERO, |derived| derived.log_offset);
    let mode = if options.read_only { OpenMode::Read } else { OpenMode::ReadWrite };
    let search = Search {
        storage,
        dir: &dir,
        file_bytes: format.log_file_bytes,
        mode,
        rules,
        watermark: known.watermark,
        visit_from,
        salvage: options.salvage,
    };
    let found = inspect(search, visit)?;
    known.foreign &= !found.files.is_empty();
    if let Some(corruption) = found.corruptions.first().filter(|_| !options.salvage) {
        return Err(Error::Corrupt(corruption.clone()));
    }
    format.record_crc_from = match options.crc {
        RecordCrc::On => Some(found.rules.crc_from.unwrap_or(found.tail)),
        RecordCrc::Off => None,
    };
    begin_session(&side, lock.as_ref(), ours, &format)?;
    let log_use = LogUse {
        storage: storage.clone(),
        side: side.clone(),
        clock: Arc::clone(&options.clock),
        rules: Rules { crc_from: format.record_crc_from },
        crc: options.crc,
        grouped: options.grouped,
        read_only: options.read_only,
    };
    let log = CommitLog::settle(&found, log_use, known.watermark)?;
    Ok(OpenedLog { log, side, lock, known, format, found })
}

/// From here on the store counts as written by us and not closed.
fn begin_session(side: &SideFolder, lock: Option<&StoreLock>, ours: bool, format: &StoreFormat) -> Result<()> {
    if !ours {
        side.clear()?;
    }
    side.create()?;
    side.empty_new()?;
    if let Some(lock) = lock {
        lock.mark()?;
    }
    format.save(side)?;
    create_abort(side.storage(), side.root())
}

/// The length that log files have in a folder: what most lengths, and most distances of names, say. Neither alone will
/// do: a file may be short, or missing.
fn file_bytes_on_disk(storage: &Storage, dir: &Path) -> Result<Option<u64>> {
    let (files, _) = list_log_files(storage, dir)?;
    let distances = files.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for bytes in distances.chain(files.iter().map(|(_, bytes)| *bytes)) {
        *votes.entry(bytes).or_default() += 1;
    }
    let allowed = votes.into_iter().filter(|(bytes, _)| LOG_FILE_BYTES.contains(bytes));
    let winner = allowed.max_by_key(|(_, count)| *count);
    Ok(winner.map(|(bytes, _)| bytes))
}

impl CommitLog {
    /// Opens the log of the store in `root`, without queues, index or background threads, and takes the store's lock.
    ///
    /// `file_bytes` is the length of a log file if the store is new; an existing one has its own. The folder's
    /// `commitlog/` and `mqlog/` are used. What was torn by a crash is cut, kept aside and durable when this returns.
    /// Appended bytes survive a kill at once and a power loss once [`flush`](Self::flush) has returned.
    ///
    /// # Errors
    /// - [`Error::InvalidOption`] if `file_bytes` is less than 1,024 or more than 2 GiB - 1
    /// - [`Error::Locked`] if the store is open elsewhere
    /// - [`Error::Corrupt`] if durable bytes are damaged; nothing was written then
    /// - [`Error::Io`] or [`Error::DiskFull`] if a file cannot be read, made or synced
    ///
    /// # Examples
    /// ```
    /// use mqlog::{CommitLog, LogOffset, Message, QueueCursor, QueueOffset};
    /// # let dir = tempfile::tempdir()?;
    /// # let root = dir.path();
    /// let log = CommitLog::open(root, 64 * 1024)?;
    /// let cursor = QueueCursor::new(QueueOffset::ZERO);
    /// let first = log.append(&Message::new("orders").body(b"one"), &cursor)?;
    /// let second = log.append(&Message::new("orders").body(b"two"), &cursor)?;
    /// assert_eq!((first.log_offset, second.queue_offset), (LogOffset::ZERO, QueueOffset::new(1)));
    /// log.flush()?;
    /// assert_eq!(log.read(second.log_offset)?.body(), b"two");
    /// assert_eq!(log.scan(LogOffset::ZERO).count(), 2);
    /// log.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Source
    /// RocketMQ's `CommitLog`, which needs its store; ours needs a folder.
    pub fn open(root: impl AsRef<Path>, file_bytes: u64) -> Result<Self> {
        check_file_bytes(file_bytes)?;
        let storage = Storage::real();
        let root = root.as_ref().to_path_buf();
        storage.create_dir_durably(&root)?;
        let options = LogOptions {
            grouped: !storage.maps_safely(&root),
            storage,
            clock: Arc::new(SystemClock),
            root,
            wanted: StoreFormat { log_file_bytes: file_bytes, ..StoreFormat::default() },
            detect: |_, _, _| Ok(()),
            crc: RecordCrc::On,
            read_only: false,
            salvage: false,
        };
        let opened = open_log(&options, &mut |_| {})?;
        opened.log.keep_lock(opened.lock);
        Ok(opened.log)
    }

    /// Appends a message and moves its queue's cursor. Does not wait for the disk.
    ///
    /// # Errors
    /// - [`Error::InvalidMessage`] or [`Error::TooLarge`] if the message is not acceptable
    /// - [`Error::DiskFull`] if there are no blocks for it; nothing was written
    /// - [`Error::Poisoned`] or [`Error::Closed`] if the log takes no appends any more
    ///
    /// # Panics
    /// Never: one message is placed as one record.
    pub fn append(&self, message: &Message<'_>, cursor: &QueueCursor) -> Result<Appended> {
        message.check(&MessageLimits { max_body_bytes: MAX_BODY_BYTES, max_topic_bytes: 127 })?;
        if super::unit::light_queues(message).next().is_some() {
            let reason = "light queues need a store".to_owned();
            return Err(Error::InvalidMessage { field: "INNER_MULTI_DISPATCH", reason });
        }
        let mut unit = Unit::encode(&[message], self.encoding(DEFAULT_HOST), Vec::new())?;
        let mut appended = None;
        self.append_unit(&mut unit, Cursors { queue: cursor, light: &[] }, &mut |record| appended = Some(record))?;
        if self.shared.grouped {
            self.flush()?;
        }
        Ok(appended.expect("a unit of one message places one record"))
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

    /// Has the log drafted for keep the store's lock until its last handle goes, or gives it back.
    fn keep_lock(&self, lock: Option<StoreLock>) {
        *self.shared.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = lock;
    }
}

/// Checks the option that decides the length of a log file.
pub(crate) fn check_file_bytes(file_bytes: u64) -> Result<()> {
    if LOG_FILE_BYTES.contains(&file_bytes) {
        return Ok(());
    }
    let reason = format!("{file_bytes} is not in {} to {}", LOG_FILE_BYTES.start(), LOG_FILE_BYTES.end());
    Err(Error::InvalidOption { option: "log_file_bytes", reason })
}
