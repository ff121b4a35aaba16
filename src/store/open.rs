//! Opening a store: lock, log, sizes, queues and index, then the tasks.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::durable::DurableLog;
use super::report::RecoveryReport;
use super::sizes::sizes_on_disk;
use super::tasks::start_tasks;
use super::{MessageStore, Shared, Tasks};
use crate::checkpointer::Checkpointer;
use crate::clock::SystemClock;
use crate::commit_log::{CommitLog, LogOptions, OpenedLog, ReadMode, open_log};
use crate::consume_queue::{QueueSizes, QueueTable};
use crate::disk::{OverlayDisk, Storage, descriptor_limit};
use crate::dispatch::{DelayLevels, Dispatcher};
use crate::drive::Drive;
use crate::error::{Corruption, Error, Result};
use crate::flush::{FlushPolicy, FlushService};
use crate::format::index::IndexLayout;
use crate::format::record::RecordCrc;
use crate::index_file::IndexSet;
use crate::message::MessageLimits;
use crate::options::{RecoveryMode, StoreOptions};
use crate::recovery::{NextOffsets, Parts, recover};
use crate::side::{DerivedFile, StoreFormat, has_abort};

/// Topics longer than this need V2 records.
const TOPIC_BYTES: usize = 127;
const LONG_TOPIC_BYTES: usize = 255;
/// How often an opening for reading tries again where a file goes in this moment.
const READ_ONLY_TRIES: usize = 16;

impl MessageStore {
    /// Opens the store in the options' folder; makes it if there is none. Returns when everything that was durable is
    /// readable again, queues and index agree with the log, and appends can begin.
    ///
    /// # Errors
    /// - [`Error::InvalidOption`] if an option is outside of its limits
    /// - [`Error::Locked`] if the store is open elsewhere
    /// - [`Error::Corrupt`] if durable bytes are damaged and the options say [`RecoveryMode::Refuse`]; nothing was
    ///   written then
    /// - [`Error::DiskFull`] or [`Error::Io`] if a file cannot be read, made or synced
    ///
    /// # Examples
    /// ```
    /// use mqlog::{FlushPolicy, Message, MessageStore, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let root = dir.path().join("orders.store");
    /// let store = MessageStore::open(StoreOptions::new(root).flush(FlushPolicy::Sync))?;
    /// let put = store.put(Message::new("orders").queue(0).tags("paid").key("o-17").body(b"..."))?;
    /// for message in store.queue("orders", 0).iter_from(put.queue_offset) {
    ///     assert_eq!(message?.body(), b"...");
    /// }
    /// for message in store.query("orders", "o-17", ..)? {
    ///     assert_eq!(message?.log_offset(), put.log_offset);
    /// }
    /// store.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(options: StoreOptions) -> Result<Self> {
        options.check()?;
        let real = Storage::new(Arc::clone(&options.disk));
        // Read-only: everything that an opening would write goes to memory.
        let overlay = || Storage::new(Arc::new(OverlayDisk::new(Arc::clone(&options.disk))));
        if options.read_only {
            // Between the listing of a file and its opening, a writer beside this may have deleted it.
            let mut tries = (1..READ_ONLY_TRIES).map(|_| open_with(&options, overlay(), true));
            let lasts = |opened: &Result<Self>| !opened.as_ref().is_err_and(Error::is_missing);
            return tries.find(lasts).unwrap_or_else(|| open_with(&options, overlay(), true));
        }
        match open_with(&options, real, false) {
            Err(Error::Corrupt(_)) if options.recovery == RecoveryMode::ReadOnly => {
                open_with(&options, overlay(), true)
            }
            opened => opened,
        }
    }
}

/// Up here, since it has to look at the sizes of queues and index, which the store that opens them later keeps.
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
        let wanted = StoreFormat { log_file_bytes: file_bytes, ..StoreFormat::default() };
        wanted.check()?;
        let storage = Storage::real();
        let root = root.as_ref().to_path_buf();
        storage.create_dir_durably(&root)?;
        let options = LogOptions {
            grouped: !storage.maps_safely(&root),
            read_mode: ReadMode::default(),
            storage,
            clock: Arc::new(SystemClock),
            root,
            wanted,
            detect: sizes_on_disk,
            crc: RecordCrc::On,
            read_only: false,
            salvage: false,
        };
        let OpenedLog { log, side, format, is_clean, .. } = open_log(&options, &mut |_, _| {})?;
        if is_clean {
            // Nobody looks at queues and index now: the store that opens next has to, at all of them.
            DerivedFile::remove(&side)?;
        }
        format.save(&side)?;
        Ok(log)
    }
}

fn open_with(options: &StoreOptions, storage: Storage, read_only: bool) -> Result<MessageStore> {
    let had_abort = has_abort(&storage, &options.root)?;
    // The folder that is there already tells the file system.
    let existing = options.root.ancestors().find(|dir| storage.info(dir).is_ok_and(|info| info.is_some()));
    let existing = existing.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let grouped = options.flush == FlushPolicy::Sync || !storage.maps_safely(existing);
    let log_options = LogOptions {
        storage: storage.clone(),
        clock: Arc::clone(&options.clock),
        root: options.root.clone(),
        wanted: options.sizes.clone(),
        detect: sizes_on_disk,
        crc: if options.record_crc { RecordCrc::On } else { RecordCrc::Off },
        grouped,
        read_mode: options.read_mode,
        read_only,
        salvage: read_only || options.recovery == RecoveryMode::Salvage,
    };
    let mut next = NextOffsets::default();
    let opened = open_log(&log_options, &mut |derived, record| next.note(derived, record))?;
    build(options, opened, &next, (read_only, had_abort))
}

fn build(
    options: &StoreOptions,
    opened: OpenedLog,
    next: &NextOffsets,
    (read_only, had_abort): (bool, bool),
) -> Result<MessageStore> {
    let (parts, strays) = open_parts(options, &opened)?;
    let OpenedLog { log, side, known, format, found, is_clean: clean } = opened;
    let mut on_progress = |at, end| options.on_progress.iter().for_each(|callback| callback(at, end));
    let recovered = recover(&parts, &known, clean, next, &mut on_progress)?;
    let report = RecoveryReport {
        clean: clean || (known.foreign && !had_abort),
        foreign_writer: known.foreign,
        log: log.range(),
        torn: found.torn,
        corruptions: with_met(found.corruptions, parts.dispatcher.damages()),
        repaired_blanks: found.blanks,
        strays: [found.strays, strays].concat(),
        empty_files: found.empty,
        queues_compared: recovered.queues_compared.len() as u64,
        queues_repaired: recovered.queues_repaired,
        index_rebuilt: recovered.index_rebuilt,
        scanned_bytes: found.scanned_bytes,
        refused_entries: parts.dispatcher.refused(),
    };
    let file = if recovered.frame_holds { DerivedFile::open(&side)? } else { None };
    let file = file.map(|(file, derived)| (file, derived.log_offset));
    let dispatcher = parts.dispatcher;
    let checkpointer = Arc::new(Checkpointer::new(side.clone(), Arc::clone(&dispatcher), file));
    let tasks = Tasks::default();
    let target = Arc::new(DurableLog { log: log.clone(), tasks: Arc::clone(&tasks) });
    let shared = Arc::new(Shared {
        log,
        queues: Arc::clone(&dispatcher.queues),
        index: Arc::clone(&dispatcher.index),
        dispatcher,
        checkpointer,
        flush: FlushService::start(target, options.flush.clone(), options.drive)?,
        clock: Arc::clone(&options.clock),
        side,
        format,
        read_only,
        limits: MessageLimits {
            crc: if options.record_crc { RecordCrc::On } else { RecordCrc::Off },
            max_body_bytes: options.max_body_bytes,
            max_topic_bytes: if options.long_topics { LONG_TOPIC_BYTES } else { TOPIC_BYTES },
        },
        host: options.store_host,
        is_manual: options.drive == Drive::Manual,
        tasks,
        rebuilt: AtomicU64::new(0),
        deleting: Mutex::default(),
        is_going: AtomicBool::new(false),
        closed: AtomicBool::new(false),
    });
    let store = MessageStore { shared, report };
    if !read_only {
        store.shared.log.start_preparing(options.drive)?;
        start_tasks(&store.shared, options)?;
    }
    Ok(store)
}

/// The damage that the search for the log's end found, and that which comparisons met, each place once.
fn with_met(mut found: Vec<Corruption>, met: Vec<Corruption>) -> Vec<Corruption> {
    let holds = |whole: &Corruption, part: &Corruption| {
        whole.range.start <= part.range.start && part.range.end <= whole.range.end
    };
    for met in met {
        if !found.iter().any(|known| holds(known, &met)) {
            found.retain(|known| !holds(&met, known));
            found.push(met);
        }
    }
    found.sort_by_key(|damage| damage.range.start);
    found
}

/// Opens queues and index as they are; also returns the names that are none of theirs.
fn open_parts(options: &StoreOptions, opened: &OpenedLog) -> Result<(Parts, Vec<PathBuf>)> {
    let levels = DelayLevels::parse(&options.delay_levels)?;
    let (side, format) = (opened.side.clone(), &opened.format);
    let (storage, new_dir) = (side.storage().clone(), side.path().join("new"));
    let sizes = QueueSizes {
        queue_file_entries: format.queue_file_entries,
        batch_queue_file_entries: format.batch_queue_file_entries,
        max_open_files: options.max_open_files.min(descriptor_limit() / 4),
        log_file_bytes: format.log_file_bytes,
    };
    let (queues, queue_strays) = QueueTable::open(storage.clone(), &options.root, &new_dir, sizes)?;
    let layout = IndexLayout { slots: format.index_slots, entries: format.index_entries };
    let clock = Arc::clone(&options.clock);
    let (index, index_strays) = IndexSet::open(storage, &options.root, layout, &new_dir, clock)?;
    let (queues, index, on_arrival) = (Arc::new(queues), Arc::new(index), options.on_arrival.clone());
    let dispatcher = Arc::new(Dispatcher::new(opened.log.clone(), queues, index, levels, on_arrival));
    let parts = Parts { side, format: format.clone(), dispatcher, save_bytes: options.checkpoint_bytes };
    Ok((parts, [queue_strays, index_strays].concat()))
}
