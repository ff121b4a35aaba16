//! mqlog is the persistence core of a message broker: durable queues on one commit log, in Apache RocketMQ's files.
//!
//! # Contents
//!
//! - [Thirty seconds](#thirty-seconds): put, get, query
//! - [Which type for which job](#which-type-for-which-job)
//! - [When a message is durable](#when-a-message-is-durable)
//! - [When something is wrong](#when-something-is-wrong)
//! - [The files](#the-files), and the page of [`mod@format`]
//! - [`MessageStore::open`] and [`StoreOptions`], where to start
//!
//! # Thirty seconds
//!
//! ```
//! use mqlog::{FlushPolicy, Message, MessageStore, StoreOptions};
//! # let dir = tempfile::tempdir()?;
//! # let root = dir.path().join("orders.store");
//! let store = MessageStore::open(StoreOptions::new(root).flush(FlushPolicy::Sync))?;
//! let put = store.put(Message::new("orders").queue(0).tags("paid").key("o-17").body(b"..."))?; // durable here
//!
//! for message in store.queue("orders", 0).iter_from(put.queue_offset) {
//!     assert_eq!(message?.body(), b"...");
//! }
//! for message in store.query("orders", "o-17", ..)? {
//!     assert_eq!(message?.log_offset(), put.log_offset);
//! }
//! store.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which type for which job
//!
//! | you want to | use |
//! |---|---|
//! | open a directory, with sizes and policies | [`StoreOptions`], [`MessageStore::open`]; what it found is in [`RecoveryReport`] |
//! | put messages | [`Message`], [`MessageStore::put`], [`put_batch`](MessageStore::put_batch); the answer is [`Appended`] |
//! | keep many messages in flight | [`MessageStore::append`], then [`wait_durable`](MessageStore::wait_durable) or [`on_durable`](MessageStore::on_durable) |
//! | read a queue | [`MessageStore::queue`] and [`QueueHandle::iter_from`] |
//! | serve consumers as RocketMQ does | [`MessageStore::get`] with [`GetLimits`] and [`TagFilter`]; [`GetStatus`] says why there is nothing |
//! | wait for a message | [`MessageStore::wait`] |
//! | find messages by key, by time, by id | [`MessageStore::query`], [`QueueHandle::offset_by_time`], [`MessageStore::read_by_id`] |
//! | read everything in order, damage included | [`MessageStore::scan`] |
//! | look into a store without changing it | [`StoreOptions::read_only`]; [`MessageStore::verify`] checks it |
//! | delete old messages | [`MessageStore::delete_before`], [`delete_older_than`](MessageStore::delete_older_than) |
//! | drive background work by hand | [`Drive::Manual`] |
//! | use a part alone | [`CommitLog`], [`ConsumeQueue`], [`IndexFile`], [`FlushService`] |
//! | read or write RocketMQ's bytes | [`mod@format`] |
//! | put another disk below | [`disk`] |
//!
//! What is read is a [`MessageView`]: a record, checked and without a copy, that outlives its file's deletion and the
//! store. [`LogOffset`] counts bytes of the log, [`QueueOffset`] messages of a queue.
//!
//! # When a message is durable
//!
//! | policy | when `put` has returned, the message survives |
//! |---|---|
//! | [`FlushPolicy::Sync`] | kill -9 and power loss |
//! | [`FlushPolicy::Async`], the default | kill -9; a power loss only if it is below [`MessageStore::durable_offset`] |
//! | [`FlushPolicy::Manual`] | as `Async`, but only the caller flushes |
//!
//! # When something is wrong
//!
//! There is one [`Error`], whose variants say what can be done. A full disk passes without reopening
//! ([`Error::DiskFull`]); after a failed write or sync the store takes no more appends ([`Error::Poisoned`]) until it is
//! opened again. Damage to what was durable is [`Error::Corrupt`], and [`RecoveryMode`] says what an opening does about
//! it. What a crash left half-written at the end of the log is cut, kept in `mqlog/cut/` and reported.
//!
//! A mapped file that another program truncates, and an I/O error while a mapped page is read, end the process with a
//! signal ([`ReadMode::Copy`] avoids the second); network file systems are not supported.
//!
//! # The files
//!
//! RocketMQ's, described in [`mod@format`], and a folder `mqlog/` for what RocketMQ has no place for; it is ignored by
//! RocketMQ and rebuilt where it is missing. So a broker's directory opens here, and a store's directory in a broker.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

#[cfg(test)]
extern crate self as mqlog;

mod checkpointer;
mod clock;
mod commit_log;
mod consume_queue;
#[cfg(test)]
#[path = "../tests/crash/mod.rs"]
mod crash;
pub mod disk;
mod dispatch;
mod drive;
mod error;
mod flush;
pub mod format;
mod index_file;
#[cfg(loom)]
#[cfg(test)]
#[path = "../tests/loom/mod.rs"]
mod loom;
mod mapped_file;
#[cfg(test)]
#[path = "../tests/memory/mod.rs"]
mod memory;
mod message;
mod offset;
mod options;
#[cfg(test)]
mod planted;
mod progress;
mod recovery;
mod retention;
mod side;
mod store;
mod sync;
mod view;
#[cfg(test)]
#[path = "../tests/common/watched_disk.rs"]
mod watched_disk;

pub use clock::{Clock, SystemClock};
pub use commit_log::{Appended, CommitLog, LogScan, ReadMode, ScanItem};
pub use consume_queue::{ConsumeQueue, QueueItem, TimeBound};
pub use drive::Drive;
pub use error::{Corruption, Error, Result};
pub use flush::{FlushPolicy, FlushService, FlushTarget};
pub use index_file::IndexFile;
pub use mapped_file::Slice;
pub use message::Message;
pub use offset::{LogOffset, QueueCursor, QueueOffset};
pub use options::{RecoveryMode, StoreOptions};
pub use store::{
    GetLimits, GetResult, GetStatus, MessageStore, Query, QueueHandle, QueueIter, RecoveryReport, Stats, TagFilter,
    VerifyReport,
};
pub use view::MessageView;
