//! Logs on a disk in memory: for loom, and for Miri, which has no mapped files.

pub(crate) mod disk;
mod kit;
#[cfg(not(loom))]
mod threads;

#[cfg(loom)]
pub(crate) use kit::CELL_BYTES;
pub(crate) use kit::{Kit, mapped_file, put};
