//! How a store is opened.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::commit_log::{DEFAULT_HOST, MAX_BODY_BYTES, ReadMode};
use crate::disk::{Disk, RealDisk};
use crate::dispatch::{DEFAULT_DELAY_LEVELS, DelayLevels, OnArrival};
use crate::drive::Drive;
use crate::error::{Error, Result};
use crate::flush::FlushPolicy;
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
    /// The opening fails with [`Error::Corrupt`](crate::Error::Corrupt), and nothing was written.
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

/// The options that only keep what they get: a field each, with its default, and a method that sets it.
macro_rules! options {
    ($(#[$of_all:meta])* pub struct StoreOptions { $($(#[$doc:meta])* $name:ident: $type:ty = $default:expr,)+ }
     sizes { $($(#[$size_doc:meta])* $size:ident: $number:ty,)+ }) => {
        $(#[$of_all])*
        #[derive(Clone)]
        pub struct StoreOptions {
            pub(crate) root: PathBuf,
            pub(crate) sizes: StoreFormat,
            pub(crate) delay_levels: String,
            pub(crate) on_progress: Option<OnProgress>,
            pub(crate) on_arrival: Option<OnArrival>,
            $(pub(crate) $name: $type,)+
        }

        impl StoreOptions {
            /// Options for the store in `root`, with files of modest sizes: log files of 64 MiB, small queue and index
            /// files.
            #[must_use]
            pub fn new(root: impl Into<PathBuf>) -> Self {
                Self {
                    root: root.into(),
                    sizes: StoreFormat::default(),
                    delay_levels: DEFAULT_DELAY_LEVELS.to_owned(),
                    on_progress: None,
                    on_arrival: None,
                    $($name: $default,)+
                }
            }

            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(mut self, $name: $type) -> Self {
                    self.$name = $name;
                    self
                }
            )+

            $(
                $(#[$size_doc])*
                #[must_use]
                pub fn $size(mut self, $size: $number) -> Self {
                    self.sizes.$size = $size;
                    self
                }
            )+
        }
    };
}

options! {
    /// How [`MessageStore::open`](crate::MessageStore::open) opens a store: a folder, and everything else with a
    /// default.
    ///
    /// Sizes are for a new store; an existing one keeps the sizes that its files have.
    ///
    /// # Examples
    /// ```
    /// use mqlog::{FlushPolicy, StoreOptions};
    /// let options = StoreOptions::new("orders.store").flush(FlushPolicy::Sync).log_file_bytes(16 << 20);
    /// assert_eq!(options.root(), std::path::Path::new("orders.store"));
    /// ```
    pub struct StoreOptions {
        /// When messages become durable. Default: in the background, every 500 ms.
        flush: FlushPolicy = FlushPolicy::default(),

        /// Does every record carry a CRC of all of itself? Default yes. Without it header, topic and properties of a
        /// record are not protected, and records are those of a stock broker byte for byte.
        #[doc(alias = "enabledAppendPropCRC")]
        record_crc: bool = true,

        /// May a topic have 128 to 255 bytes? Default no: RocketMQ 4.9 cuts the log at the first such record.
        long_topics: bool = false,

        /// The longest body that is accepted, in bytes. Default 4 MiB, as RocketMQ's.
        #[doc(alias = "maxMessageSize")]
        max_body_bytes: usize = MAX_BODY_BYTES,

        /// How many queue files are kept open at most, and never more than a quarter of the files that the process may have
        /// open when the store is opened. Default 512.
        max_open_files: usize = 512,

        /// How messages are read. Default [`ReadMode::Mapped`]; a store that is opened for reading only copies.
        read_mode: ReadMode = ReadMode::default(),

        /// What happens when durable bytes are found damaged. Default [`RecoveryMode::Refuse`].
        recovery: RecoveryMode = RecoveryMode::default(),

        /// Stands for the store's, and the producer's, host in messages that name none; part of message ids. Default
        /// 127.0.0.1:10911.
        store_host: SocketAddr = DEFAULT_HOST,

        /// A checkpoint is written after this many bytes of log, and of a rebuild. Default 256 MiB. What a crash leaves
        /// to dispatch again is at most about this much.
        checkpoint_bytes: u64 = 256 << 20,

        /// A checkpoint is written this long after the first change that no checkpoint covers. Default 30 s.
        checkpoint_interval: Duration = Duration::from_secs(30),

        /// Who does the background work. Default [`Drive::Threads`].
        drive: Drive = Drive::default(),

        /// Open for reading only: no lock is taken and nothing is written, whatever the store's state. What a recovery
        /// would change is changed in memory. Works beside a running writer, and shows the store as it was at opening.
        /// Damage is shown, not refused. Default no.
        read_only: bool = false,

        /// Where store times come from. Default [`SystemClock`].
        clock: Arc<dyn Clock> = Arc::new(SystemClock),

        /// Where the files are. Default the operating system's.
        disk: Arc<dyn Disk> = Arc::new(RealDisk),
    }

    sizes {
        /// Length of a log file: 1,024 to 2 GiB - 1. Default 64 MiB. No record can be longer than that less 8 bytes.
        #[doc(alias = "mappedFileSizeCommitLog")]
        log_file_bytes: u64,

        /// Entries of 20 bytes in a queue file: at least 1. Default 20,000; the disk holds no more of it than is written.
        #[doc(alias = "mappedFileSizeConsumeQueue")]
        queue_file_entries: u32,

        /// Entries of 46 bytes in a file of a batch queue: at least 1. Default 20,000; the disk holds no more of it than is written.
        batch_queue_file_entries: u32,

        /// Hash slots of an index file: at least 1. Default 16,384.
        #[doc(alias = "maxHashSlotNum")]
        index_slots: u32,

        /// Entries of an index file, of which the first is never used: at least 2. Default 65,536.
        #[doc(alias = "maxIndexNum")]
        index_entries: u32,
    }
}

impl StoreOptions {
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

    /// The delays of RocketMQ's delay levels, from level 1 on. Default RocketMQ's: `1s 5s 10s 30s 1m` to `2h`.
    #[doc(alias = "messageDelayLevel")]
    #[must_use]
    pub fn delay_levels(mut self, levels: impl Into<String>) -> Self {
        self.delay_levels = levels.into();
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
    pub(crate) fn check(&self) -> Result<()> {
        if self.root.as_os_str().is_empty() {
            let reason = "it is empty; the working directory is `.`".to_owned();
            return Err(Error::InvalidOption { option: "root", reason });
        }
        self.sizes.check()?;
        self.flush.check()?;
        DelayLevels::parse(&self.delay_levels).map(drop)
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("StoreOptions");
        fields.field("root", &self.root).field("sizes", &self.sizes).field("flush", &self.flush);
        fields.field("recovery", &self.recovery).field("read_only", &self.read_only).finish_non_exhaustive()
    }
}
