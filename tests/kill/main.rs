//! Kills a writing process at random moments and looks at what it left: every acknowledged message is there, none was
//! invented, nothing has a hole.
//!
//! The test starts its own binary as the writer. `MQLOG_KILL_ROUNDS` says how often (default 200), `MQLOG_KILL_SEED`
//! chooses other moments.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure, with what led to it, is what a test is for")]

#[path = "../common/mod.rs"]
mod common;
mod writer;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Content, Random, check_content, check_store, fast_dir, small};
use mqlog::format::record::RecordView;
use mqlog::{LogOffset, MessageStore};
use writer::{Ack, PRODUCERS, message_of};

/// Rounds that a store lives.
const ROUNDS_A_STORE: u64 = 10;

/// What was counted over all rounds.
#[derive(Debug, Default)]
struct Counts {
    stores: u64,
    writing_kills: u64,
    opening_kills: u64,
    acknowledged: u64,
    unacknowledged: u64,
    torn: u64,
    deleted_files: u64,
}

/// What the parent knows of a store.
#[derive(Debug, Default)]
struct Known {
    /// Log offset, producer and number of each message that was acknowledged, or seen after an opening.
    messages: BTreeMap<u64, (u64, u64)>,
    /// Acknowledged since the last look.
    acks: Vec<Ack>,
}

#[test]
fn a_killed_writer_loses_nothing_and_invents_nothing() {
    let number = |name, default| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let rounds = number("MQLOG_KILL_ROUNDS", 200);
    let mut random = Random(number("MQLOG_KILL_SEED", 1));
    let mut counts = Counts::default();
    let begun = Instant::now();
    let mut dir = tempfile::tempdir().unwrap();
    let mut known = Known::default();
    for round in 0..rounds {
        if round % ROUNDS_A_STORE == 0 {
            // Most are in memory, where a writer comes further in the same time.
            dir = if counts.stores % 4 == 0 { tempfile::tempdir().unwrap() } else { fast_dir() };
            known = Known::default();
            counts.stores += 1;
        }
        let root = dir.path().join("store");
        if round % 4 == 3 {
            kill_while_opening(&root, round, &mut random, &mut counts);
        }
        let acks = kill_while_writing(&root, round, &mut random, &mut counts);
        counts.acknowledged += acks.len() as u64;
        known.acks = acks;
        look(&root, &mut known, round, &mut counts);
    }
    println!("{rounds} rounds in {:?}: {counts:?}", begun.elapsed());
    assert_eq!(counts.writing_kills, rounds);
    assert!(rounds == 0 || counts.acknowledged > rounds, "the writers had no time to write");
    assert!(rounds < 20 || counts.opening_kills > 0, "no opening was killed");
}

/// Starts a writer and kills it after a random time; returns what it acknowledged.
fn kill_while_writing(root: &Path, round: u64, random: &mut Random, counts: &mut Counts) -> Vec<Ack> {
    let after = Duration::from_micros(random.below(30_000));
    let lines = run_writer(root, round, "opened", after);
    assert!(lines.iter().any(|line| line == "opened"), "the writer could not open the store: {lines:?}");
    counts.writing_kills += 1;
    counts.deleted_files += lines.iter().filter(|line| *line == "deleted").count() as u64;
    lines.iter().filter_map(|line| Ack::parse(line)).collect()
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

/// Opens the store, now and then only for reading, and compares it with what is known.
fn look(root: &Path, known: &mut Known, round: u64, counts: &mut Counts) {
    let read_only = MessageStore::open(small(root).read_only(true)).unwrap();
    let content = check_content(&read_only);
    check_acknowledged(&read_only, known);
    check_order(&content, known, counts);
    read_only.close().unwrap();
    // Every third time the next writer has to recover the store by itself.
    if round.is_multiple_of(3) {
        return;
    }
    let store = MessageStore::open(small(root)).unwrap();
    let report = store.recovery_report().clone();
    assert!(!report.clean && !report.foreign_writer, "{report:?}");
    assert_eq!((&report.corruptions[..], &report.strays[..]), (&[][..], &[][..]));
    counts.torn += u64::from(report.torn.is_some());
    assert_eq!(check_store(&store), content, "opened for reading and for writing differ");
    if round % 3 == 1 {
        store.close().unwrap();
        let again = MessageStore::open(small(root).read_only(true)).unwrap();
        assert!(again.recovery_report().clean, "{:?}", again.recovery_report());
    }
}

fn check_acknowledged(store: &MessageStore, known: &mut Known) {
    for ack in std::mem::take(&mut known.acks) {
        let wanted = message_of(ack.producer, ack.number);
        if ack.log_offset < store.log_range().start.get() {
            continue;
        }
        let message = store.read(LogOffset::new(ack.log_offset)).unwrap_or_else(|error| panic!("{ack:?}: {error}"));
        assert_eq!(message.body(), wanted.body, "{ack:?}");
        assert_eq!((message.topic().as_ref(), message.queue_id()), (wanted.topic, wanted.queue_id), "{ack:?}");
        assert_eq!(message.queue_offset().get(), ack.queue_offset, "{ack:?}");
        let queued = store.queue(wanted.topic, wanted.queue_id).iter_from(message.queue_offset()).next();
        assert_eq!(**queued.unwrap().unwrap().bytes(), **message.bytes(), "{ack:?}");
        let by_key: Vec<_> = store.query(wanted.topic, &wanted.key, ..).unwrap().collect();
        assert!(by_key.iter().any(|found| found.as_ref().unwrap().log_offset().get() == ack.log_offset), "{ack:?}");
        known.messages.insert(ack.log_offset, (ack.producer, ack.number));
    }
}

/// Everything that was known is there, and each producer's messages stand in order without a hole.
fn check_order(content: &Content, known: &mut Known, counts: &mut Counts) {
    let start = content.records.first().map_or(u64::MAX, |record| record.0);
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for (at, bytes) in &content.records {
        let record = RecordView::decode(bytes).unwrap();
        let (producer, number) = writer::name_in(record.body());
        let wanted = message_of(producer, number);
        assert!(producer / PRODUCERS < 1 << 32 && record.body() == wanted.body, "{producer}/{number} at {at}");
        match last.insert(producer, number) {
            Some(before) => assert_eq!(number, before + 1, "producer {producer} at {at}"),
            // What is older may have been deleted.
            None => {
                assert!(number == 0 || content.records[0].0 > 0, "producer {producer} begins with {number} at {at}");
            }
        }
        found.insert(*at, (producer, number));
    }
    for (at, name) in known.messages.range(start..) {
        assert_eq!(found.get(at), Some(name), "what was there at {at} is gone");
    }
    counts.unacknowledged += found.keys().filter(|at| !known.messages.contains_key(at)).count() as u64;
    known.messages = found;
}
