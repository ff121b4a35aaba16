//! Consume queues: for each (topic, queue id) the places of its messages in the log, in order.
//!
//! Bottom up: `handles` keeps a bounded number of files open; `entry_files` reads and writes fixed-size entries over
//! files of fixed length; `queue` is what readers see, `append` its growth, `cut` what takes entries away; `restore`
//! believes a checkpoint or compares a queue with the log; `by_time` searches; `extension` follows RocketMQ's extension
//! addresses; `table` has all queues.
//!
//! One writer, many readers: entries are written first, then the end that readers see moves. What readers have seen
//! changes only under a new generation, and a reader that meets one begins again.

mod append;
mod by_time;
mod cut;
mod entry_files;
mod extension;
mod handles;
mod queue;
mod restore;
mod table;
#[cfg(test)]
mod tests;

pub use by_time::TimeBound;
pub(crate) use entry_files::QueueSizes;
pub use queue::{ConsumeQueue, QueueItem};
pub(crate) use table::QueueTable;
