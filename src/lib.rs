//! mqlog: the persistence core of a message broker.

mod error;
mod message;
mod offset;

pub mod format;

pub use error::Error;
pub use message::Message;
pub use offset::{LogOffset, QueueCursor, QueueOffset};
