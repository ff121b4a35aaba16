//! Crash states: workloads run on a simulated disk, and every state that a crash may leave is opened and judged.
//!
//! One run of a workload gives the disk's state after each of its calls. For each of those a kill and a power loss are
//! taken apart into what may come out of them ([`enumerate`]): all of it where that is little, else a sample. Each
//! outcome is opened, judged by the oracle, used, crashed once more and judged again. Openings are crashed as well.
//! Everything happens in one thread under a clock of its own, so a run is the same every time.
//!
//! `MQLOG_CRASH_STATES` says how many distinct states there shall be (default 100,000), `MQLOG_CRASH_SEED` chooses
//! other workloads and samples.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure, with what led to it, is what a test is for")]

#[path = "../common/mod.rs"]
mod common;
mod enumerate;
mod faults;
mod planted;
mod regressions;
mod suite;
mod workloads;
