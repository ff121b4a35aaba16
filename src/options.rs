//! How a store is opened.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::commit_log::{DEFAULT_HOST, MAX_BODY_BYTES, check_file_bytes};
use crate::disk::{Disk, RealDisk};
use crate::dispatch::{DEFAULT_DELAY_LEVELS, DelayLevels, OnArrival};
use crate::drive::Drive;
use crate::error::{Error, Result};
use crate::flush::FlushPolicy;
use crate::format::index::{IndexEntry, IndexHeader};
use crate::format::queue_entry::{BatchEntry, QueueEntry};
use crate::format::record::RecordCrc;
use crate::offset::LogOffset;
use crate::side::StoreFormat;

/// What an opening does about damaged bytes that were durable.
///
/// # Examples
/// ```
/// use mqlog::{Error, MessageStore, RecoveryMode, StoreOptions};
/// # let dir = tempfile::tempdir()?;
/// let options = StoreOptions::new(dir.path());
/// let store = match MessageStore::open(options.clone()) {
///     Err(Error::Corrupt(damage)) => {
///         eprintln!("going on around it: {damage}");
///         MessageStore::open(options.recovery(RecoveryMode::Salvage))?
///     }
///     opened => opened?,
/// };
/// assert!(store.recovery_report().corruptions.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecoveryMode {
    /// The opening fails with [`Error::Corrupt`], and nothing was written.
    #[default]
    Refuse,
    /// The store opens for reading only: every whole record is shown, nothing is written.
    ReadOnly,
    /// The store opens for writing: every whole record is shown, the damaged bytes stay as they are, and appends go on
    /// behind the last whole record.
    Salvage,
}

/// Told how far a long opening is: the offset reached, and the end.
pub(crate) type OnProgress = Arc<dyn Fn(LogOffset, LogOffset) + Send + Sync>;

/// How [`MessageStore::open`](crate::MessageStore::open) opens a store: a folder, and everything else with a default.
///
/// Sizes are for a new store; an existing one keeps the sizes that its files have.
///
/// # Examples
/// ```
/// use mqlog::{FlushPolicy, StoreOptions};
/// let options = StoreOptions::new("orders.store").flush(FlushPolicy::Sync).log_file_bytes(16 << 20);
/// assert_eq!(options.root(), std::path::Path::new("orders.store"));
/// ```
#[derive(Clone)]
pub struct StoreOptions {
    pub(crate) root: PathBuf,
    pub(crate) sizes: StoreFormat,
    pub(crate) flush: FlushPolicy,
    pub(crate) recovery: RecoveryMode,
    pub(crate) record_crc: RecordCrc,
    pub(crate) long_topics: bool,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_open_files: usize,
    pub(crate) delay_levels: String,
    pub(crate) store_host: SocketAddr,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) drive: Drive,
    pub(crate) read_only: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) on_progress: Option<OnProgress>,
    pub(crate) on_arrival: Option<OnArrival>,
}

impl StoreOptions {
    /// Options for the store in `root`, with files of modest sizes: log files of 64 MiB, small queue and index files.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            sizes: StoreFormat::default(),
            flush: FlushPolicy::default(),
            recovery: RecoveryMode::default(),
            record_crc: RecordCrc::On,
            long_topics: false,
            max_body_bytes: MAX_BODY_BYTES,
            max_open_files: 512,
            delay_levels: DEFAULT_DELAY_LEVELS.to_owned(),
            store_host: DEFAULT_HOST,
            checkpoint_bytes: 256 << 20,
            checkpoint_interval: Duration::from_secs(30),
            drive: Drive::Threads,
            read_only: false,
            clock: Arc::new(SystemClock),
            disk: Arc::new(RealDisk),
            on_progress: None,
            on_arrival: None,
        }
    }

    /// Options with RocketMQ's default sizes: log files of 1 GiB, 300,000 entries a queue file, index files of
    /// 420,000,040 bytes. Choose this if a RocketMQ broker with its defaults shall open the folder later.
    #[must_use]
    pub fn rocketmq(root: impl Into<PathBuf>) -> Self {
        let options = Self::new(root).log_file_bytes(1 << 30).queue_file_entries(300_000);
        options.batch_queue_file_entries(300_000).index_slots(5_000_000).index_entries(20_000_000)
    }

    /// The store's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// When messages become durable. Default: in the background, every 500 ms.
    #[must_use]
    pub fn flush(mut self, policy: FlushPolicy) -> Self {
        self.flush = policy;
        self
    }

    /// Length of a log file: 1,024 to 2 GiB - 1. Default 64 MiB. No record can be longer than that less 8 bytes.
    #[doc(alias = "mappedFileSizeCommitLog")]
    #[must_use]
    pub fn log_file_bytes(mut self, bytes: u64) -> Self {
        self.sizes.log_file_bytes = bytes;
        self
    }

    /// Entries of 20 bytes in a queue file: at least 1. Default 1,000.
    #[doc(alias = "mappedFileSizeConsumeQueue")]
    #[must_use]
    pub fn queue_file_entries(mut self, entries: u32) -> Self {
        self.sizes.queue_file_entries = entries;
        self
    }

    /// Entries of 46 bytes in a file of a batch queue: at least 1. Default 1,000.
    #[must_use]
    pub fn batch_queue_file_entries(mut self, entries: u32) -> Self {
        self.sizes.batch_queue_file_entries = entries;
        self
    }

    /// Hash slots of an index file: at least 1. Default 16,384.
    #[doc(alias = "maxHashSlotNum")]
    #[must_use]
    pub fn index_slots(mut self, slots: u32) -> Self {
        self.sizes.index_slots = slots;
        self
    }

    /// Entries of an index file, of which the first is never used: at least 2. Default 65,536.
    #[doc(alias = "maxIndexNum")]
    #[must_use]
    pub fn index_entries(mut self, entries: u32) -> Self {
        self.sizes.index_entries = entries;
        self
    }

    /// Does every record carry a CRC of all of itself? Default yes. Without it header, topic and properties of a record
    /// are not protected, and records are those of a stock broker byte for byte.
    #[doc(alias = "enabledAppendPropCRC")]
    #[must_use]
    pub fn record_crc(mut self, on: bool) -> Self {
        self.record_crc = if on { RecordCrc::On } else { RecordCrc::Off };
        self
    }

    /// May a topic have 128 to 255 bytes? Default no: RocketMQ 4.9 cuts the log at the first such record.
    #[must_use]
    pub fn long_topics(mut self, allowed: bool) -> Self {
        self.long_topics = allowed;
        self
    }

    /// The longest body that is accepted, in bytes. Default 4 MiB, as RocketMQ's.
    #[doc(alias = "maxMessageSize")]
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// How many queue files are kept open at most. Default 512.
    #[must_use]
    pub fn max_open_files(mut self, count: usize) -> Self {
        self.max_open_files = count;
        self
    }

    /// What happens when durable bytes are found damaged. Default [`RecoveryMode::Refuse`].
    #[must_use]
    pub fn recovery(mut self, mode: RecoveryMode) -> Self {
        self.recovery = mode;
        self
    }

    /// The delays of RocketMQ's delay levels, from level 1 on. Default RocketMQ's: `1s 5s 10s 30s 1m` to `2h`.
    #[doc(alias = "messageDelayLevel")]
    #[must_use]
    pub fn delay_levels(mut self, levels: impl Into<String>) -> Self {
        self.delay_levels = levels.into();
        self
    }

    /// Stands for the store's, and the producer's, host in messages that name none; part of message ids. Default
    /// 127.0.0.1:10911.
    #[must_use]
    pub fn store_host(mut self, host: SocketAddr) -> Self {
        self.store_host = host;
        self
    }

    /// A checkpoint is written after this many bytes of log, and of a rebuild. Default 256 MiB. What a crash leaves to dispatch again is
    /// at most about this much.
    #[must_use]
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = bytes;
        self
    }

    /// A checkpoint is written this long after the first change that no checkpoint covers. Default 30 s.
    #[must_use]
    pub fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.checkpoint_interval = interval;
        self
    }

    /// Who does the background work. Default [`Drive::Threads`].
    #[must_use]
    pub fn drive(mut self, drive: Drive) -> Self {
        self.drive = drive;
        self
    }

    /// Open for reading only: no lock is taken and nothing is written, whatever the store's state. What a recovery
    /// would change is changed in memory. Works beside a running writer, and shows the store as it was at opening.
    /// Damage is shown, not refused. Default no.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Where store times come from. Default [`SystemClock`].
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where the files are. Default the operating system's.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Called during an opening that has to read the log, with the offset reached and the end.
    #[must_use]
    pub fn on_progress(mut self, callback: impl Fn(LogOffset, LogOffset) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(callback));
        self
    }

    /// Called with topic and queue number after new messages of a queue can be read: for a server that has to know
    /// which of many waiting readers to serve. [`MessageStore::wait`](crate::MessageStore::wait) waits for one.
    ///
    /// By the dispatch thread, or by a thread that reads, with no lock held; several may call at the same time. Keep it
    /// short, and do not use the store in it: hand the news to a thread of your own, which reads. A message that came
    /// before a reader looked is not told again.
    ///
    /// # Examples
    /// ```
    /// use mqlog::{Message, MessageStore, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let (sender, arrivals) = std::sync::mpsc::channel();
    /// let told = move |topic: &str, queue_id| drop(sender.send((topic.to_owned(), queue_id)));
    /// let store = MessageStore::open(StoreOptions::new(dir.path()).on_arrival(told))?;
    /// store.put(Message::new("orders").queue(3))?;
    /// assert_eq!(arrivals.recv()?, ("orders".to_owned(), 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Source
    /// RocketMQ's `MessageArrivingListener`; ours names the queue only, once for all messages of a step.
    #[doc(alias = "MessageArrivingListener")]
    #[must_use]
    pub fn on_arrival(mut self, callback: impl Fn(&str, i32) + Send + Sync + 'static) -> Self {
        self.on_arrival = Some(Arc::new(callback));
        self
    }

    /// Checks every limit that can be checked before anything is opened.
    pub(crate) fn check(&self) -> Result<DelayLevels> {
        check_file_bytes(self.sizes.log_file_bytes)?;
        check_sizes(&self.sizes)?;
        DelayLevels::parse(&self.delay_levels)
    }
}

/// Checks the sizes of queue and index files: RocketMQ maps no file of more than 31 bits.
fn check_sizes(sizes: &StoreFormat) -> Result<()> {
    let limit = i32::MAX as u64;
    let (slots, entries) = (u64::from(sizes.index_slots), u64::from(sizes.index_entries));
    let index_bytes = IndexHeader::BYTES as u64 + slots * 4 + entries * IndexEntry::BYTES as u64;
    let checks = [
        ("queue_file_entries", sizes.queue_file_entries, 1, QueueEntry::BYTES as u64),
        ("batch_queue_file_entries", sizes.batch_queue_file_entries, 1, BatchEntry::BYTES as u64),
        ("index_slots", sizes.index_slots, 1, 4),
        ("index_entries", sizes.index_entries, 2, IndexEntry::BYTES as u64),
    ];
    for (option, value, least, bytes) in checks {
        let is_index = option.starts_with("index");
        let file_bytes = if is_index { index_bytes } else { u64::from(value) * bytes };
        if value < least || file_bytes > limit {
            let reason =
                format!("{value} is less than {least}, or its file's {file_bytes} bytes are more than {limit}");
            return Err(Error::InvalidOption { option, reason });
        }
    }
    Ok(())
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("StoreOptions");
        fields.field("root", &self.root).field("sizes", &self.sizes).field("flush", &self.flush);
        fields.field("recovery", &self.recovery).field("read_only", &self.read_only).finish_non_exhaustive()
    }
}
