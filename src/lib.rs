//! mqlog: the persistence core of a message broker.

mod clock;
pub mod disk;
mod error;
mod message;
mod offset;

pub mod format;

pub use clock::{Clock, SystemClock};
pub use error::{Corruption, Error, Result};
pub use message::Message;
pub use offset::{LogOffset, QueueCursor, QueueOffset};
