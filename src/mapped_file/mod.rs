//! Files of one fixed length that together are one sequence of bytes.
//!
//! A [`MappedFile`] is one file, mapped; [`MappedFiles`] holds them in the order of their base offsets and finds the
//! one that has an offset. [`Slice`] is a piece of published bytes that keeps its file.

mod file;
mod set;

pub use file::Slice;
pub(crate) use file::{MappedFile, Writer};
pub(crate) use set::{Creation, MappedFiles, list_log_files, write_zeros};
