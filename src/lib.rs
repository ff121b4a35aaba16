//! mqlog: the persistence core of a message broker.

mod clock;
pub mod disk;
mod drive;
mod error;
mod flush;
mod offset;
mod progress;

pub mod format;

pub use clock::{Clock, SystemClock};
pub use drive::Drive;
pub use error::{Corruption, Error, Result};
pub use flush::{FlushPolicy, FlushService, FlushTarget};
pub use offset::{LogOffset, QueueCursor, QueueOffset};
