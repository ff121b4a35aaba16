//! Puts a broker's load on a store, or reads it back, and says how fast that went and how fast it could go.
//!
//! ```text
//! load STORE [--producers N] [--body BYTES] [--flush async|sync] [--seconds S|--messages N]
//!            [--queues N] [--keys] [--read seq|random] [--limit] [--rocketmq-sizes] [--json]
//! ```
//!
//! Producers call [`MessageStore::put`] one after the other returned, with dispatch running. STORE is made if it is not
//! there, and appended to if it is. With `--read` nothing is put if STORE has messages of the topic `load` already;
//! one thread then reads them (queue by queue, or at random queue offsets), as long or as many as asked for, after it
//! has read everything once, so that pages are in memory.
//!
//! At the end: rate, latencies, how often the log was synced, and with `--limit` what the machine allows at best, as
//! measured before and after in a folder beside STORE, with the disk at rest: row L1 for `async`, L3 for `sync` with
//! one producer, L4 with several, L5 for reads (`benches/limits` says what they are). The limit of a run is the mean of
//! the two. Before a run of so many seconds the row runs as long (L1 up to 2 GiB), since nobody knows yet how many
//! messages it will be; everywhere else it does as many messages as the run.
//!
//! `--json` prints one object on one line of standard output: `messages`, `seconds`, `msgs_per_s`, `mb_per_s` (10^6
//! bytes of bodies), `p50_us`, `p90_us`, `p99_us`, `p999_us`, `max_us`, `syncs`, `limit_msgs_per_s`, `ratio` (the last
//! two `null` without `--limit`). Progress and messages go to standard error. The exit status is 0 when all was done, 1
//! when something failed, 2 when the command line is wrong.

mod args;
mod limit;
#[path = "../../benches/limits/mod.rs"]
mod limits;
mod progress;
mod put;
mod read;
mod report;

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use mqlog::{FlushPolicy, MessageStore, StoreOptions};

use crate::args::{Args, Flush, USAGE};
use crate::limit::Limit;
use crate::progress::Progress;
use crate::report::Report;

/// Why a run ended early.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let args = match Args::parse(env::args_os().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            let _ = writeln!(io::stdout(), "{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            complain(&format!("{wrong}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    let report = match run(&args) {
        Ok(report) => report,
        Err(failure) => {
            complain(&failure.to_string());
            return ExitCode::from(1);
        }
    };
    let text = if args.json { report.json() } else { report.text(&args) };
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("the result cannot be printed: {error}"));
            ExitCode::from(1)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints a message on standard error; not by `eprintln!`, which panics when nobody reads there any more.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "load: {message}");
}

fn run(args: &Args) -> Result<Report, Failure> {
    let progress = Progress::new();
    let store = open(args)?;
    let queues = if args.read.is_some() { read::queues(&store)? } else { Vec::new() };
    let puts_first = args.read.is_some() && queues.is_empty();
    if puts_first {
        put::run(&store, args, &progress)?;
    }
    let queues = if puts_first { read::queues(&store)? } else { queues };
    let body_bytes = if args.read.is_some() { read::warm_up(&store, &queues, &progress)? } else { args.body_bytes };

    let mut limit = None;
    if args.limit {
        let stored = queues.iter().map(read::Queue::len).sum();
        let folder = beside(&args.store)?;
        limit = Some(Limit::new(folder, args, (store.log_file_bytes(), body_bytes), stored)?);
    }
    if let Some(limit) = &mut limit {
        limit.measure_before(args.budget(), &progress)?;
        progress.say("waiting until the disk is at rest");
        limits::wait_until_quiet();
    }
    let report = match args.read {
        Some(order) => read::run(&store, &queues, order, args, &progress)?,
        None => put::run(&store, args, &progress)?,
    };
    progress.say("closing the store");
    store.close()?;
    if let Some(limit) = &mut limit {
        limit.measure_after(report.messages, &progress)?;
    }
    progress.finish();
    Ok(Report { limit: limit.map(Limit::into_rates), ..report })
}

fn open(args: &Args) -> Result<MessageStore, Failure> {
    let options =
        if args.rocketmq_sizes { StoreOptions::rocketmq(&args.store) } else { StoreOptions::new(&args.store) };
    let policy = match args.flush {
        Flush::Async => FlushPolicy::async_default(),
        Flush::Sync => FlushPolicy::Sync,
    };
    Ok(MessageStore::open(options.flush(policy))?)
}

/// A folder on the disk that the store is on; it is removed with everything in it.
fn beside(store: &Path) -> io::Result<tempfile::TempDir> {
    let parent = store.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".load-limit-").tempdir_in(parent)
}
