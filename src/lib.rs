//! mqlog: the persistence core of a message broker.

mod clock;
pub mod disk;
mod error;
mod offset;
mod side;

pub mod format;

pub use clock::{Clock, SystemClock};
pub use error::{Corruption, Error, Result};
pub use offset::{LogOffset, QueueCursor, QueueOffset};
