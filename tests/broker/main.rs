//! `examples/mini_broker` as its clients see it: every code, what goes wrong, restarts, and hostile bytes.
//!
//! The clients here are the test's own; RocketMQ's clients are tested apart.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure, with what led to it, is what a test is for")]

mod client;
mod consumers;
#[path = "../common/example.rs"]
mod example;
mod hostile;
mod memory;
mod offsets;
#[path = "../common/parameter.rs"]
mod parameter;
#[path = "../common/pipeline.rs"]
mod pipeline;
mod process;
mod pulls;
mod restarts;
mod sends;
mod slow_readers;
mod speed;

use std::path::PathBuf;

use mqlog::format::record::RecordView;
use tempfile::TempDir;

use client::{Client, Frame, pull_fields, send_fields};
use process::Broker;

/// A broker on a store of its own.
struct Scene {
    folder: TempDir,
    broker: Broker,
}

impl Scene {
    fn new(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(&folder.path().join("store"), options);
        Self { folder, broker }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn client(&self) -> Client {
        self.broker.client()
    }
}

/// Sends a message to a queue and returns the answer.
fn send(client: &mut Client, topic: &str, queue: &str, properties: &str, body: &[u8]) -> Frame {
    let answer = client.call(310, &send_fields(topic, queue, properties), body);
    assert_eq!(answer.code, 0, "{}", answer.remark);
    answer
}

/// Pulls without waiting.
fn pull(client: &mut Client, topic: &str, place: (&str, &str), subscription: &str) -> Frame {
    client.call(11, &pull_fields(topic, place, subscription, "0"), b"")
}

/// The records of a pull's answer.
fn records(answer: &Frame) -> Vec<RecordView<'_>> {
    let mut rest = &answer.body[..];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let record = RecordView::decode(rest).unwrap();
        record.verify().unwrap();
        rest = &rest[record.bytes().len()..];
        records.push(record);
    }
    records
}

fn bodies(answer: &Frame) -> Vec<Vec<u8>> {
    records(answer).iter().map(|record| record.body().to_vec()).collect()
}
