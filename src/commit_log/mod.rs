//! The commit log: append, read, scan, and what an opening makes of the files it finds.

mod delete;
mod durable;
mod inspect;
mod log;
#[cfg(test)]
mod model_tests;
mod open;
mod place;
mod read;
mod reader;
#[cfg(test)]
mod recovery_tests;
mod scan;
mod settle;
#[cfg(test)]
mod test_kit;
#[cfg(test)]
mod tests;
mod unit;

pub use log::{Appended, CommitLog};
pub use scan::{LogScan, ScanItem};

pub(crate) use open::{Known, LogOptions, MAX_BODY_BYTES, OpenedLog, check_file_bytes, open_log};
pub(crate) use scan::Walked;
pub(crate) use settle::DEFAULT_HOST;
pub(crate) use unit::{Cursors, Unit, light_queues, offsets_of};
