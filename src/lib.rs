//! mqlog: the persistence core of a message broker.

mod checkpointer;
mod clock;
mod commit_log;
mod consume_queue;
pub mod disk;
mod dispatch;
mod drive;
mod error;
mod flush;
pub mod format;
mod index_file;
mod mapped_file;
mod message;
mod offset;
mod options;
mod progress;
mod recovery;
mod retention;
mod side;
mod store;
mod view;

pub use clock::{Clock, SystemClock};
pub use commit_log::{Appended, CommitLog, LogScan, ScanItem};
pub use consume_queue::{ConsumeQueue, QueueItem, TimeBound};
pub use drive::Drive;
pub use error::{Corruption, Error, Result};
pub use flush::{FlushPolicy, FlushService, FlushTarget};
pub use index_file::IndexFile;
pub use mapped_file::Slice;
pub use message::Message;
pub use offset::{LogOffset, QueueCursor, QueueOffset};
pub use options::{RecoveryMode, StoreOptions};
pub use store::{
    GetLimits, GetResult, GetStatus, MessageStore, Query, QueueHandle, QueueIter, RecoveryReport, Stats, TagFilter,
    VerifyReport,
};
pub use view::MessageView;
