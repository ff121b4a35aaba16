//! Kills a writing process at random moments and has the oracle judge what it left.
//!
//! The test starts its own binary as the writer. `MQLOG_KILL_ROUNDS` says how often (default 200), `MQLOG_KILL_SEED`
//! chooses other moments.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure, with what led to it, is what a test is for")]

#[path = "../common/mod.rs"]
mod common;
mod writer;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::oracle::{Crash, Oracle, Promise, Violation};
use common::parameter::parameter;
use common::{Random, check_store, fast_dir, small};
use mqlog::{LogOffset, MessageStore};
use writer::{Told, message_of};

/// Rounds that a store lives.
const ROUNDS_A_STORE: u64 = 10;

/// What was counted over all rounds.
#[derive(Debug, Default)]
struct Counts {
    stores: u64,
    writing_kills: u64,
    opening_kills: u64,
    put: u64,
    acknowledged: u64,
    torn: u64,
    deletions: u64,
}

#[test]
fn a_killed_writer_loses_nothing_and_invents_nothing() {
    let rounds = parameter("MQLOG_KILL_ROUNDS", 200);
    let mut random = Random(parameter("MQLOG_KILL_SEED", 1));
    let mut counts = Counts::default();
    let begun = Instant::now();
    let mut dir = tempfile::tempdir().unwrap();
    let mut oracle = Oracle::new(Promise::Async);
    for round in 0..rounds {
        if round % ROUNDS_A_STORE == 0 {
            // Most are in memory, where a writer comes further in the same time.
            dir = if counts.stores % 4 == 0 { tempfile::tempdir().unwrap() } else { fast_dir() };
            // A kill takes nothing that was acknowledged, whatever the policy.
            oracle = Oracle::new(Promise::Async);
            counts.stores += 1;
        }
        let root = dir.path().join("store");
        if round % 4 == 3 {
            kill_while_opening(&root, round, &mut random, &mut counts);
        }
        let lines = kill_while_writing(&root, round, &mut random, &mut counts);
        tell(&mut oracle, &lines, &mut counts);
        look(&root, &mut oracle, round, &mut counts);
    }
    println!("{rounds} rounds in {:?}: {counts:?}", begun.elapsed());
    assert_eq!(counts.writing_kills, rounds);
    assert!(counts.acknowledged > rounds, "the writers had no time to write");
    assert!(rounds < 20 || counts.opening_kills > 0, "no opening was killed");
}

/// Starts a writer and kills it after a random time; returns what it said.
fn kill_while_writing(root: &Path, round: u64, random: &mut Random, counts: &mut Counts) -> Vec<String> {
    let after = Duration::from_micros(random.below(30_000));
    let lines = run_writer(root, round, "opened", after);
    assert!(lines.iter().any(|line| line == "opened"), "the writer could not open the store: {lines:?}");
    counts.writing_kills += 1;
    lines
}

/// Kills a few writers while they open the store, some of them while they build everything anew.
fn kill_while_opening(root: &Path, round: u64, random: &mut Random, counts: &mut Counts) {
    for _ in 0..3 {
        match random.below(3) {
            0 => drop(fs::remove_file(root.join("mqlog/derived"))),
            1 => drop(fs::remove_dir_all(root.join("mqlog"))),
            _ => {}
        }
        let lines = run_writer(root, round, "opening", Duration::from_micros(random.below(12_000)));
        if !lines.iter().any(|line| line == "opened") {
            counts.opening_kills += 1;
        }
    }
}

/// Runs a writer until some time after a line; returns its whole lines.
fn run_writer(root: &Path, round: u64, until: &str, after: Duration) -> Vec<String> {
    let only_open = until == "opening";
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "writer::writes_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(writer::ROOT, root)
        .env(writer::ROUND, round.to_string())
        .env(writer::ONLY_OPEN, if only_open { "1" } else { "0" })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = child.stderr.take().unwrap();
    let error_reader = thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    let wanted = until.to_owned();
    let reader = thread::spawn(move || {
        let (mut lines, mut line) = (Vec::new(), String::new());
        while output.read_line(&mut line).unwrap() > 0 {
            if let Some(whole) = line.strip_suffix('\n') {
                if whole == wanted {
                    let _ = sender.send(());
                }
                lines.push(whole.to_owned());
            }
            line.clear();
        }
        lines
    });
    let _ = receiver.recv_timeout(Duration::from_secs(30));
    thread::sleep(after);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    let lines = reader.join().unwrap();
    let errors = error_reader.join().unwrap().unwrap();
    assert!(!errors.contains("panicked"), "{errors}");
    assert!(status.code().is_none(), "the writer ended by itself with {status}: {lines:?}");
    lines
}

/// Opens the store, now and then only for reading, and has the oracle judge it.
fn look(root: &Path, oracle: &mut Oracle, round: u64, counts: &mut Counts) {
    let mut judged = |store: &MessageStore| {
        let content = oracle.check_opened(store, Crash::Kill);
        content.unwrap_or_else(|Violation(text)| panic!("round {round}: {text}"))
    };
    let read_only = MessageStore::open(small(root).read_only(true)).unwrap();
    let content = judged(&read_only);
    read_only.close().unwrap();
    // Every third time the next writer has to recover the store by itself.
    if round.is_multiple_of(3) {
        return;
    }
    let store = MessageStore::open(small(root)).unwrap();
    let report = store.recovery_report().clone();
    assert!(!report.clean && !report.foreign_writer, "{report:?}");
    counts.torn += u64::from(report.torn.is_some());
    assert_eq!(judged(&store), content, "opened for reading and for writing differ");
    assert_eq!(check_store(&store), content, "the store is not as its log says");
    if round % 3 == 1 {
        store.close().unwrap();
        let again = MessageStore::open(small(root).read_only(true)).unwrap();
        assert!(again.recovery_report().clean, "{:?}", again.recovery_report());
    }
}

/// Tells the oracle what the writer said.
fn tell(oracle: &mut Oracle, lines: &[String], counts: &mut Counts) {
    for told in lines.iter().filter_map(|line| Told::parse(line)) {
        match told {
            Told::Put { producer, number, count } => {
                oracle.starts(producer, (number..number + count).map(|number| message_of(producer, number)));
                counts.put += count;
            }
            Told::Ack { producer, number, place } => {
                oracle.acknowledges_body(&message_of(producer, number).body, place);
                counts.acknowledged += 1;
            }
            Told::Delete(offset) => oracle.deletes_before(LogOffset::new(offset)),
            Told::Deleted(start) => {
                oracle.deleted(LogOffset::new(start));
                counts.deletions += 1;
            }
        }
    }
}
