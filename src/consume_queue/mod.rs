//! Consume queues: for each (topic, queue id) the places of its messages in the log, in order.
//!
//! Bottom up: `entry_files` reads and writes fixed-size entries over files of fixed length, of which a bounded number is
//! open, and follows RocketMQ's extension addresses; `queue` is what readers see and search, `change` its growth and what
//! takes entries away; `restore` believes a checkpoint or compares a queue with the log; `table` has all queues.
//!
//! One writer, many readers: entries are written first, then the end that readers see moves. What readers have seen
//! changes only under a new generation, and a reader that meets one begins again.

mod change;
mod entry_files;
mod queue;
mod restore;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use change::sync_queues;
pub(crate) use entry_files::QueueSizes;
pub(crate) use queue::Damages;
pub use queue::{ConsumeQueue, QueueItem, TimeBound};
pub(crate) use table::QueueTable;
