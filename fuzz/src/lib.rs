//! What is fuzzed: plain functions of any bytes, each of which says what has to hold.
//!
//! `fuzz_targets/` hands them to libFuzzer, `tests/fuzz` of the library drives them over the committed corpus with a
//! stable compiler. They use what is public only.

#![allow(unreachable_pub, reason = "a test includes this file as a private module")]
#![allow(clippy::print_stderr, reason = "what led to a finding is shown to whoever asks for it")]
#![allow(clippy::unwrap_used, reason = "a panic is how a target reports a failure")]

mod batch_body;
#[path = "../../tests/common/mod.rs"]
pub(crate) mod common;
mod damage;
mod index_file;
mod input;
mod judge;
mod open;
mod properties;
mod queue_entries;
mod record;
mod side_files;
mod stores;

pub use batch_body::batch_body;
pub use index_file::index_file;
pub use open::open;
pub use properties::properties;
pub use queue_entries::queue_entries;
pub use record::record;
pub use side_files::side_files;

/// A target: it panics where something does not hold, and tells whether the input led past the first refusal.
pub type Target = fn(&[u8]) -> bool;

/// Every target by its name, which is that of its corpus too.
pub const TARGETS: [(&str, Target); 7] = [
    ("record", record),
    ("properties", properties),
    ("queue_entries", queue_entries),
    ("index_file", index_file),
    ("side_files", side_files),
    ("batch_body", batch_body),
    ("open", open),
];
