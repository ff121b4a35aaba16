//! mqlog: the persistence core of a message broker.

mod clock;
mod commit_log;
pub mod disk;
mod drive;
mod error;
mod flush;
pub mod format;
mod mapped_file;
mod message;
mod offset;
mod progress;
mod side;
mod view;

pub use clock::{Clock, SystemClock};
pub use commit_log::{Appended, CommitLog, LogScan, ScanItem};
pub use drive::Drive;
pub use error::{Corruption, Error, Result};
pub use flush::{FlushPolicy, FlushService, FlushTarget};
pub use mapped_file::Slice;
pub use message::Message;
pub use offset::{LogOffset, QueueCursor, QueueOffset};
pub use view::MessageView;
