//! What an opening found and did, as data.

use std::ops::Range;
use std::path::PathBuf;

use crate::error::Corruption;
use crate::offset::LogOffset;

/// What [`MessageStore::open`](crate::MessageStore::open) found and did.
///
/// # Examples
/// ```
/// use mqlog::{Message, MessageStore, StoreOptions};
/// # let dir = tempfile::tempdir()?;
/// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
/// store.put(Message::new("orders"))?;
/// store.close()?;
/// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
/// let report = store.recovery_report();
/// assert!(report.clean && report.torn.is_none() && report.corruptions.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The last session closed the store completely.
    pub clean: bool,
    /// Another program wrote to the store since mqlog did, or mqlog never did: everything was looked at.
    pub foreign_writer: bool,
    /// What the log has now.
    pub log: Range<LogOffset>,
    /// Bytes behind the end that were cut, and are kept in `mqlog/cut/`.
    pub torn: Option<Range<LogOffset>>,
    /// Damage to what was durable: what was looked at to find the log's end, and what a comparison of queues or index with the
    /// log met. An opening under [`RecoveryMode::Refuse`](crate::RecoveryMode::Refuse) fails only at the former.
    pub corruptions: Vec<Corruption>,
    /// End-of-file blanks with a wrong field, which were written anew.
    pub repaired_blanks: Vec<LogOffset>,
    /// Files or folders that are none of the store's; they were left alone.
    pub strays: Vec<PathBuf>,
    /// Empty files that a kill had left behind the last one of a folder; they were removed.
    pub empty_files: Vec<PathBuf>,
    /// Queues that were compared with the log.
    pub queues_compared: u64,
    /// Queues whose files were not as the log says, and were repaired.
    pub queues_repaired: Vec<(String, i32)>,
    /// The index was built anew.
    pub index_rebuilt: bool,
    /// How much of the log was read to find its end.
    pub scanned_bytes: u64,
    /// Entries that got no place: a name that is no folder, a queue offset that is taken.
    pub refused_entries: u64,
}

/// What a store has done and has, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// What may be read of the log.
    pub log: Range<LogOffset>,
    /// The end of what was appended.
    pub tail: LogOffset,
    /// The end of what is durable.
    pub durable: LogOffset,
    /// The end of what is in queues and index.
    pub dispatched: LogOffset,
    /// How often the log was made durable.
    pub syncs: u64,
    /// Queues that exist.
    pub queues: u64,
    /// Entries that got no place: a name that is no folder, a queue offset that is taken.
    pub refused_entries: u64,
    /// Queues that were rebuilt since opening because an entry did not fit its record.
    pub rebuilt_queues: u64,
    /// Bytes of deleted log files that somebody still holds.
    pub pinned_bytes: u64,
    /// How often the wall clock jumped by more than an hour, forward or back.
    pub clock_jumps: u64,
    /// Damage of the log that dispatch met.
    pub damages: Vec<Corruption>,
}
