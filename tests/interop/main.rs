//! mqlog against the real Apache RocketMQ: stores that one of them wrote are read and continued by the other.
//!
//! RocketMQ is its own `DefaultMessageStore`, 4.9.8 and 5.3.3, fetched by Maven and driven by the tool in `java/`; mqlog is its example
//! programs `import` and `inspect`. Run it with `MQLOG_INTEROP=1 cargo test --release --test interop -- --nocapture`; it needs Maven
//! and a JDK of at least 11. Without that variable only the tests of the comparison itself run.
//! `MQLOG_INTEROP_SEED=N` takes other messages, and a store that did not pass is kept and named.

#[cfg(unix)]
mod check;
#[cfg(unix)]
#[path = "../common/maven.rs"]
mod maven;
#[cfg(unix)]
mod mqlog;
#[cfg(unix)]
#[path = "../common/parameter.rs"]
mod parameter;
#[cfg(unix)]
mod process;
#[cfg(unix)]
#[path = "../common/program.rs"]
mod program;
#[cfg(unix)]
mod random;
#[cfg(unix)]
mod rocketmq;
#[cfg(unix)]
mod suite;
