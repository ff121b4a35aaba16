//! What threads share and wait on: std's types, and in the concurrency models those of loom.
//!
//! A module that a model runs takes them from here. Under `--cfg loom` they are loom's, which runs a test once for every
//! order in which its threads can go on; each of them then knows where it is used, so that `tests/loom` can weaken that
//! one place: an ordering, a fence, a wake-up. In every other build this module only gives std's types another path.

#[cfg(loom)]
#[cfg_attr(not(test), allow(dead_code, reason = "only the models use all of it"))]
#[path = "../tests/loom/sync.rs"]
mod model;

#[cfg(loom)]
pub(crate) use model::*;

#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, RwLock, atomic};
#[cfg(not(loom))]
pub(crate) use std::thread;
