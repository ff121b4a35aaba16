//! mqlog: the persistence core of a message broker.

mod offset;

pub mod format;

pub use offset::{LogOffset, QueueCursor, QueueOffset};
