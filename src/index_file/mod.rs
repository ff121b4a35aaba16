//! The index: which records have a key.
//!
//! An [`IndexFile`] is a hash table in a file: a header, slots, and entries that are chained from the slots, newest
//! first. An `IndexSet` is all of a store's index files, of which the newest takes new entries.
//!
//! The part that is rewritten in place, header and slots, stays in memory while a file is in use and reaches the disk
//! only when the file is written out or flushed; entries are only ever added behind each other. So what a crash can
//! damage is header and slots, and both can be made anew from the entries.
//!
//! What always holds:
//!
//! ```text
//! entry n is in the file for 1 <= n < written, in memory for written <= n < next_entry <= layout.entries
//! a chain goes from a slot's newest entry to older ones: previous < current, 0 ends it
//! ```

mod chain;
mod file;
mod name;
mod set;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use chain::Candidates;
pub use file::IndexFile;
pub(crate) use set::{Entries, IndexSet};
pub(crate) use state::detect_layout;
