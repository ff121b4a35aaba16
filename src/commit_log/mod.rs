//! The commit log: append, read, scan, and what an opening makes of the files it finds.

mod durable;
mod inspect;
mod log;
mod open;
mod place;
mod read;
mod reader;
mod scan;
mod settle;
mod unit;

pub use log::{Appended, CommitLog};
pub use scan::{LogScan, ScanItem};

pub(crate) use inspect::{Inspection, Search, inspect};
pub(crate) use read::Rules;
pub(crate) use scan::Walked;
pub(crate) use settle::{DEFAULT_HOST, LogUse};
pub(crate) use unit::{Cursors, Encoding, Unit, inner_count, light_queues};
