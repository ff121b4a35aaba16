//! The commit log: append, read, scan, and what an opening makes of the files it finds.

mod delete;
mod durable;
mod inspect;
mod known;
mod log;
mod open;
mod place;
mod read;
mod scan;
mod settle;
#[cfg(test)]
mod tests;
mod unit;

pub use log::CommitLog;
pub use read::ReadMode;
pub use scan::{LogScan, ScanItem};
pub use unit::Appended;

pub(crate) use known::{Known, LogOptions, MAX_BODY_BYTES, most_frequent};
pub(crate) use open::{OpenedLog, open_log};
pub(crate) use read::Reader;
pub(crate) use scan::Walked;
pub(crate) use settle::DEFAULT_HOST;
pub(crate) use unit::{Buffers, Cursors, Unit, check_batch, light_queues};
