//! The targets of `fuzz/`, driven by a stable compiler: over the committed corpus, and over mutations of it that are the
//! same in every run.
//!
//! `MQLOG_FUZZ_CASES` sets how many mutations each target gets; where a target panics, the test prints the input that
//! made it, to be put into the corpus.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure, with what led to it, is what a test is for")]

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use fuzz::common::parameter::parameter;
use fuzz::{TARGETS, Target};

/// Mutations of targets that open no store, and of those that do.
const CASES: [u64; 2] = [20_000, 600];

/// Small and fast, and the same everywhere.
#[derive(Debug)]
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }
}

/// The inputs of a target, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A few changes to one input: bits, bytes, numbers, pieces taken out, doubled, or from another input.
fn mutate(random: &mut Xorshift, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = bytes.len().min(at + 1 + random.below(24));
        match random.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            2 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes.insert(at, random.next() as u8),
        }
    }
    bytes.truncate(8192);
    bytes
}

/// Runs a target over an input; tells whether it led past the first refusal.
fn run(name: &str, target: Target, bytes: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| target(bytes))).unwrap_or_else(|panic| {
        println!("{name} failed for {bytes:02x?}");
        resume_unwind(panic)
    })
}

/// Drives one target; of the corpus `least` percent have to lead past the first refusal.
fn drive(name: &str, least: usize) {
    let target = TARGETS.into_iter().find(|(other, _)| *other == name).unwrap().1;
    let corpus = corpus(name);
    let past = corpus.iter().filter(|bytes| run(name, target, bytes)).count();
    let default = CASES[usize::from(matches!(name, "open" | "side_files"))];
    let cases = parameter("MQLOG_FUZZ_CASES", default);
    let mut random = Xorshift(0x9E37_79B9_7F4A_7C15);
    let past_mutated = (0..cases).filter(|_| run(name, target, &mutate(&mut random, &corpus))).count();
    let inputs = corpus.len();
    println!("{name}: {past} of {inputs} inputs and {past_mutated} of {cases} mutations led past the first refusal");
    assert!(inputs >= 15, "the corpus is not there");
    assert!(past * 100 >= inputs * least && past_mutated as u64 * 200 >= cases * least as u64);
}

#[test]
fn a_record_that_is_accepted_is_what_its_fields_encode_to() {
    drive("record", 20);
}

#[test]
fn properties_are_read_by_the_rule_alone() {
    drive("properties", 30);
}

#[test]
fn entries_encode_to_the_bytes_they_came_from() {
    drive("queue_entries", 30);
}

#[test]
fn an_index_file_of_any_bytes_is_refused_or_answers_as_they_say() {
    drive("index_file", 30);
}

#[test]
fn files_beside_the_log_of_any_bytes_lose_no_message() {
    drive("side_files", 60);
}

#[test]
fn a_batch_that_is_read_can_be_written() {
    drive("batch_body", 30);
}

#[test]
fn a_damaged_store_opens_or_is_refused_and_shows_nothing_but_whole_records() {
    drive("open", 50);
}
