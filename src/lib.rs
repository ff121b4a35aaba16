//! mqlog: the persistence core of a message broker.

mod clock;
mod commit_log;
pub mod disk;
mod drive;
mod error;
pub mod format;
mod mapped_file;
mod message;
mod offset;
mod progress;
mod side;
mod view;

pub use clock::{Clock, SystemClock};
pub use commit_log::CommitLog;
pub use error::{Corruption, Error, Result};
pub use mapped_file::Slice;
pub use message::Message;
pub use offset::{LogOffset, QueueCursor, QueueOffset};
pub use view::MessageView;
