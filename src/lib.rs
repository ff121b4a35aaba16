//! mqlog: the persistence core of a message broker.

mod clock;
pub mod disk;
mod error;
mod index_file;
mod message;
mod offset;
mod side;

pub mod format;

pub use clock::{Clock, SystemClock};
pub use error::{Corruption, Error, Result};
pub use index_file::IndexFile;
pub use message::Message;
pub use offset::{LogOffset, QueueCursor, QueueOffset};
