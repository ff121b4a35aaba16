//! The one error type: each variant tells what the caller can do about it.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and where.
///
/// An error is cheap to clone: when a store is poisoned every waiter and every later append gets the same one.
///
/// # Examples
/// ```
/// use mqlog::{Error, Message, MessageStore, StoreOptions};
/// # let dir = tempfile::tempdir()?;
/// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
/// match store.put(Message::new("orders").body(&vec![0; 5 << 20])) {
///     Err(Error::TooLarge { field, value, limit }) => println!("{field} has {value} bytes, {limit} are allowed"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("{operation} {}{}: {source}", path.display(), at(range.as_ref()))]
    Io {
        /// What was tried, as a verb: `open`, `read`, `sync` and so on.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The bytes of the file, where the operation had a range.
        range: Option<Range<u64>>,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// There is no room for what should be written; nothing was written. Appends resume when space returns.
    #[error("no space left for {}: {needed_bytes} more bytes are needed", path.display())]
    DiskFull {
        /// The file that should have grown.
        path: PathBuf,
        /// How many bytes were asked for.
        needed_bytes: u64,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// Somebody else has this store open: close that one first.
    #[error("{} is locked: {holder}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as far as known.
        holder: &'static str,
    },
    /// An earlier write or sync failed, so nothing more is accepted; durable data stays readable. Reopen the store.
    #[error("the log stopped after a failure: {source}")]
    Poisoned {
        /// The first failure.
        source: Arc<Error>,
    },
    /// Stored bytes are not what they should be.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The append would wait for the disk, and was asked not to; nothing was written.
    #[error("the append would wait for the disk")]
    WouldWait,
    /// A part of a message, or the record as a whole, is longer than a limit; nothing was written.
    #[error("{field} has {value} bytes, the limit is {limit}")]
    TooLarge {
        /// Which part.
        field: &'static str,
        /// Its size in bytes.
        value: u64,
        /// The largest size allowed.
        limit: u64,
    },
    /// A part of a message is not acceptable; nothing was written.
    #[error("invalid {field}: {reason}")]
    InvalidMessage {
        /// Which part.
        field: &'static str,
        /// Why it is refused.
        reason: String,
    },
    /// An option has a value outside of its limits.
    #[error("invalid option {option}: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What it may be.
        reason: String,
    },
    /// The offset asked for is not in the log or queue.
    #[error("offset {offset} is outside of {}..{}", available.start, available.end)]
    OutOfRange {
        /// The offset asked for.
        offset: u64,
        /// What is there.
        available: Range<u64>,
    },
    /// The entry would leave a hole in the queue, or stand twice in it.
    #[error("entry {given} does not follow {expected} in {}", path.display())]
    OutOfOrder {
        /// The queue's folder.
        path: PathBuf,
        /// The queue offset that comes next.
        expected: u64,
        /// The queue offset that was given.
        given: u64,
    },
    /// The store was opened without the right to write.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// A background task ended; what it does no longer happens.
    #[error("the {task} task stopped: {source}")]
    TaskFailed {
        /// The task's name.
        task: &'static str,
        /// Why it ended.
        source: Arc<Error>,
    },
    /// A background task panicked.
    #[error("panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// The files need something that this version does not offer.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// What is not supported.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// Bytes of the log or of a file that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged in {}..{}: {reason}", path.display(), range.start, range.end)]
pub struct Corruption {
    /// The file.
    pub path: PathBuf,
    /// The damaged bytes: log offsets for a log file, positions in the file for any other.
    pub range: Range<u64>,
    /// What does not fit.
    pub reason: String,
}

impl Error {
    /// Wraps what the operating system said, telling a full disk from everything else.
    pub(crate) fn io(operation: &'static str, path: &Path, range: Option<Range<u64>>, source: io::Error) -> Self {
        let path = path.to_path_buf();
        let full = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let source = Arc::new(source);
        if full {
            Self::DiskFull { path, needed_bytes: range.map_or(0, |range| range.end - range.start), source }
        } else {
            Self::Io { operation, path, range, source }
        }
    }

    /// Is this a full disk, which may pass without reopening?
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::TaskFailed { source, .. } => source.is_disk_full(),
            _ => false,
        }
    }

    /// Is there no such file?
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Does this pass by itself, so that background work keeps its place and tries again: a full disk, or no descriptor?
    pub(crate) fn may_pass(&self) -> bool {
        self.is_disk_full() || self.lacks_descriptor()
    }

    /// Is there no free descriptor?
    pub(crate) fn lacks_descriptor(&self) -> bool {
        // ENFILE and EMFILE have no `ErrorKind`.
        let is_short = |code| cfg!(unix) && matches!(code, 23 | 24);
        matches!(self, Self::Io { source, .. } if source.raw_os_error().is_some_and(is_short))
    }

    /// Wraps the failure that stops the log for good; a poisoned error stays as it is.
    pub(crate) fn poisoned(self) -> Self {
        match self {
            Self::Poisoned { .. } => self,
            first => Self::Poisoned { source: Arc::new(first) },
        }
    }
}

fn at(range: Option<&Range<u64>>) -> String {
    range.map_or_else(String::new, |range| format!(" at {}..{}", range.start, range.end))
}
