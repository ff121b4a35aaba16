//! Shows what is in a store: records, queues, keys, damage.
//!
//! ```text
//! inspect STORE [summary|log|queue TOPIC ID|msg ID|key TOPIC KEY|verify] [--json]
//!               [--from OFFSET] [-n COUNT] [--begin MS] [--end MS]
//! ```
//!
//! It only reads: it takes no lock and changes no byte, so it may run beside a program that writes, and on a store that
//! RocketMQ left and nobody opened since. Without `-n` and `--from` everything is shown. `--json` prints one object a
//! line on standard output and nothing else there; messages go to standard error. A damaged record is reported there
//! and skipped. The exit status is 0 when all was shown, 1 when `verify` found damage, 2 when the command line is wrong
//! or something could not be read.

mod args;
mod json;
mod output;
mod summary;
mod table;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use mqlog::{Corruption, Error, LogOffset, MessageStore, MessageView, QueueOffset, ScanItem, StoreOptions};

use crate::args::{Args, Command, USAGE};
use crate::output::Output;

/// How many queue entries are read at once.
const RUN: usize = 1024;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The store could not be read.
    Store(Error),
    /// A file or folder beside it could not be looked at.
    Folder(io::Error),
    /// The answer could not be printed.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Whether a command found damage, which only `verify` looks for.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Damaged,
}

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
    let mut output = Output::new(args.json);
    let outcome = run(&args, &mut output);
    // Who does not read to the end learns of damage all the same.
    let flushed = or_enough(output.flush()).map_err(Failure::Output);
    match outcome.and_then(|verdict| flushed.map(|()| verdict)) {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Damaged) => ExitCode::from(1),
        // The reader has seen enough, as `head` has.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => {
            complain(&format!("the answer cannot be printed: {error}"));
            ExitCode::from(2)
        }
        Err(Failure::Folder(error)) => {
            complain(&format!("{} cannot be looked at: {error}", args.store.display()));
            ExitCode::from(2)
        }
        Err(Failure::Store(error)) => {
            complain(&error.to_string());
            ExitCode::from(2)
        }
    }
}

/// Prints a message on standard error; not by `eprintln!`, which panics when nobody reads there any more.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "inspect: {message}");
}

fn run(args: &Args, output: &mut Output) -> Result<Verdict, Failure> {
    let is_absent = |name: &&str| args.store.join(name).try_exists().is_ok_and(|exists| !exists);
    if args.store.exists() && (!args.store.is_dir() || ["commitlog", "lock"].iter().all(is_absent)) {
        let reason = "it is no folder with a store: neither commitlog nor lock is in it".to_owned();
        return Err(Error::InvalidOption { option: "STORE", reason }.into());
    }
    let store = MessageStore::open(StoreOptions::new(&args.store).read_only(true))?;
    if matches!(args.command, Command::Queue { .. } | Command::Key { .. }) {
        // Of these records queues and index know nothing.
        store.recovery_report().corruptions.iter().for_each(|damage| complain(&damage.to_string()));
    }
    match &args.command {
        Command::Summary => summary::show(&store, &args.store, output)?,
        Command::Log => show_log(&store, args, output)?,
        Command::Queue { topic, queue_id } => show_queue(&store, args, (topic, *queue_id), output)?,
        Command::Message { id } => output.message(&store.read_by_id(id)?)?,
        Command::Key { topic, key } => {
            let found = store.query(topic, key, args.times())?;
            show_records(found.map(|view| view.map(Some)), args, output)?;
        }
        Command::Verify => return verify(&store, output),
    }
    Ok(Verdict::Fine)
}

fn show_log(store: &MessageStore, args: &Args, output: &mut Output) -> Result<(), Failure> {
    let start = store.log_range().start;
    let from = args.from.map_or(start, LogOffset::new);
    // A scan begins with a record. Where `--from` is none, the one after it is found from the log's beginning.
    let begin = if from > start && store.read(from).is_ok() { from } else { start };
    let records = store.scan(begin).map(|item| match item? {
        ScanItem::Record(view) if view.log_offset() >= from => Ok(Some(view)),
        ScanItem::Record(_) | ScanItem::Blank(_) => Ok(None),
        ScanItem::Damaged(damage) => Err(Error::Corrupt(damage)),
    });
    show_records(records, args, output)?;
    // What is missing behind the last file, the scan does not meet.
    let missing = |damage: &&Corruption| damage.range.start >= store.log_range().end.get();
    store.recovery_report().corruptions.iter().filter(missing).for_each(|damage| complain(&damage.to_string()));
    Ok(())
}

/// Prints records; what is damaged is reported and skipped.
fn show_records(
    records: impl Iterator<Item = mqlog::Result<Option<MessageView>>>,
    args: &Args,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut left = args.count.unwrap_or(u64::MAX);
    let times = args.times();
    for record in records {
        if left == 0 {
            break;
        }
        match or_complain(record)? {
            Some(Some(view)) if times.contains(&view.store_ms()) => {
                output.record(&view)?;
                left -= 1;
            }
            _ => {}
        }
    }
    Ok(())
}

fn show_queue(
    store: &MessageStore,
    args: &Args,
    (topic, queue_id): (&str, i32),
    output: &mut Output,
) -> Result<(), Failure> {
    let queue = store.queue(topic, queue_id);
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut from = args.from.map_or(QueueOffset::ZERO, QueueOffset::new).max(queue.range()?.start);
    while left > 0 {
        let entries = queue.entries(from, RUN)?;
        let Some(last) = entries.last() else { break };
        from = last.queue_offset + u64::from(last.count);
        for item in &entries {
            if left > 0 && is_wanted(store, args, item.entry.log_offset.into(), item.entry.record_bytes)? {
                output.entry(item)?;
                left -= 1;
            }
        }
    }
    Ok(())
}

/// Is the record of an entry still in the log, and stored in the time asked for?
fn is_wanted(store: &MessageStore, args: &Args, at: LogOffset, record_bytes: u32) -> Result<bool, Failure> {
    let log = store.log_range();
    if at < log.start || at + u64::from(record_bytes) > log.end {
        return Ok(false);
    }
    if !args.has_times() {
        return Ok(true);
    }
    let record = or_complain(store.read(at))?;
    Ok(record.is_some_and(|view| args.times().contains(&view.store_ms())))
}

/// Takes damage for nothing, after it was reported.
fn or_complain<T>(outcome: mqlog::Result<T>) -> Result<Option<T>, Failure> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Error::Corrupt(damage)) => {
            complain(&damage.to_string());
            Ok(None)
        }
        Err(error) => Err(Failure::Store(error)),
    }
}

/// Takes it for success that nobody reads on.
fn or_enough(outcome: io::Result<()>) -> io::Result<()> {
    outcome.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

fn verify(store: &MessageStore, output: &mut Output) -> Result<Verdict, Failure> {
    let report = store.verify()?;
    or_enough(output.verification(&report))?;
    Ok(if report.damages.is_empty() { Verdict::Fine } else { Verdict::Damaged })
}
