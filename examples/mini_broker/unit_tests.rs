//! The unit tests of the example, as a target of its own: `cargo test` does not build a program that has tests as a
//! program, and other tests start it.

#[path = "main.rs"]
#[allow(dead_code, reason = "nobody starts the program here")]
mod program;
#[path = "../../tests/common/watched_disk.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod watched_disk;

// The program's files name each other from the root of the crate.
use program::*;
