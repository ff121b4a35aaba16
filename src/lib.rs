//! mqlog: the persistence core of a message broker.

mod error;
mod offset;

pub use error::Error;
pub use offset::{LogOffset, QueueCursor, QueueOffset};
