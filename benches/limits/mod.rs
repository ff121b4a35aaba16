//! What the machine allows at best: the rows that the benches and `examples/load` stand beside.
//!
//! Each does the format's minimum and no more. A record is one encoded template with offsets, time and key patched, and
//! both CRCs computed; the clock is read once a record. What has to be there before (files, blocks that count as
//! written, resident pages) is made off the clock, unless the row says that it belongs to it.
//!
//! | row | is |
//! |---|---|
//! | L1 | [`FreshPages`]: records copied into a fresh mapping of an allocated file, by one thread |
//! | L2 | the same, while a helper prepares the pages ahead |
//! | L3 | [`Prewritten`]: one `pwrite` and one `fdatasync` a record, into blocks that were written once before |
//! | L4 | [`GroupCommit`]: several producers, one `pwrite` and one `fdatasync` a group, whose leader hands over; a helper prepares the blocks of the next file |
//! | L5 | [`Reads`]: records of a resident mapping, checked, in sequence or at random |
//!
//! [`Keyed`] and [`Rescan`] stand beside finding by key and opening.
//!
//! L1 and L2 keep their files until the run is over, so that a long run meets the disk's throughput as a store does;
//! L4 has files of at most [`WRITTEN_BYTES`]; L3 begins its one file anew after as many.
#![allow(dead_code, unused_imports, reason = "each bench takes the rows that it needs")]

mod fresh_pages;
mod group_commit;
mod keyed;
mod prewritten;
mod quiet;
mod reads;
mod rescan;
mod template;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

pub(crate) use fresh_pages::{FreshPages, Pages};
pub(crate) use group_commit::GroupCommit;
pub(crate) use keyed::Keyed;
pub(crate) use prewritten::Prewritten;
pub(crate) use quiet::wait_until_quiet;
pub(crate) use reads::{Order, Random, Reads};
pub(crate) use rescan::Rescan;
pub(crate) use template::{KEY_BYTES, TOPIC, Template, body, check, write_key};

/// How much is written with zeros at once, as a file whose blocks have to count as written.
pub(crate) const WRITTEN_BYTES: u64 = 64 << 20;
/// A blank has to fit behind the last record of a file.
pub(crate) const BLANK_BYTES: u64 = mqlog::format::record::BLANK_BYTES as u64;
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// How long a row runs: until one of the two is used up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) messages: u64,
    pub(crate) time: Duration,
}

impl Budget {
    pub(crate) fn of_messages(messages: u64) -> Self {
        Self { messages, time: Duration::MAX }
    }
}

/// What a row did, and how long that took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    pub(crate) messages: u64,
    pub(crate) took: Duration,
}

impl Measured {
    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Makes a file that must not be there yet.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

/// Makes a file whose blocks have been written once, and are on disk.
fn create_written(path: &Path, bytes: u64) -> io::Result<File> {
    let file = create(path)?;
    let mut at = 0;
    while at < bytes {
        let piece = usize::try_from(bytes - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        write_at(&file, &ZEROS[..piece], at)?;
        at += piece as u64;
    }
    file.sync_all()?;
    Ok(file)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        (bytes, at) = (&bytes[written..], at + written as u64);
    }
    Ok(())
}
