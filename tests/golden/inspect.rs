//! The example `inspect` on stores that RocketMQ left and nobody opened since.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::Counts;
use crate::compare::{check_keys, check_records};
use crate::disk::{Copy, listing};
use crate::example::example;
use crate::expected::{Golden, Keys, Queue, Store};
use crate::inside::Whole;

/// How many queues and keys of a store are asked for: each is a process of its own.
const SAMPLE: usize = 6;

pub(crate) fn compare(golden: &Golden, store: &Store) -> Counts {
    let copy = Copy::unpack(golden.archives(), &store.name);
    let before = listing(&copy.path());
    let (records, queues, keys) = if store.is_damaged_inside() {
        let whole = Whole::of(golden, store, &crate::disk::log_files(&copy.path()));
        (whole.records, whole.queues, whole.keys)
    } else {
        let queues = golden.full_queues(store).unwrap_or_else(|| golden.queues(store));
        (golden.records(store), queues, golden.keys(store))
    };
    let log = inspect(&copy.path(), &["log"]);
    check_records(&store.name, &objects(&log), &records);
    assert_eq!(log.stderr.is_empty(), !store.is_damaged_inside(), "{}: {}", store.name, errors(&log));

    let mut counts = Counts { stores: 1, records: records.len(), entries: 0, keys: 0 };
    let has_entries = |queue: &Queue| !queue.entries.is_empty();
    for ((topic, id), queue) in queues.iter().filter(|(_, queue)| has_entries(queue)).take(SAMPLE) {
        let shown = objects(&inspect(&copy.path(), &["queue", topic, &id.to_string()]));
        let fields = ["queue_offset", "log_offset", "record_bytes", "tags_code"];
        let entry = |line: &Value| fields.map(|field| line[field].as_i64().expect("a field of an entry is a number"));
        let shown: Vec<[i64; 4]> = shown.iter().map(entry).collect();
        assert_eq!(shown, queue.entries, "{}: queue {topic}/{id}", store.name);
        counts.entries += shown.len();
    }
    for ((topic, key), offsets) in keys.iter().take(SAMPLE) {
        let shown = objects(&inspect(&copy.path(), &["key", topic, key]));
        let offset = |line: &Value| line["log_offset"].as_u64().expect("a record has a log offset");
        let shown = Keys::from([((topic.clone(), key.clone()), shown.iter().map(offset).collect())]);
        let expected = Keys::from([((topic.clone(), key.clone()), offsets.clone())]);
        check_keys(&store.name, &shown, &expected);
        counts.keys += 1;
    }
    let verified = inspect(&copy.path(), &["verify"]);
    if store.is_damaged_inside() {
        assert_eq!(verified.status.code(), Some(1), "{}: verify finds the damage", store.name);
    } else if store.ended == "clean" {
        assert_eq!(verified.status.code(), Some(0), "{}: {:?}", store.name, objects(&verified));
    }
    assert!(listing(&copy.path()) == before, "{}: inspecting changed the store's files", store.name);
    counts
}

fn inspect(store: &Path, arguments: &[&str]) -> Output {
    let output = example("inspect").arg(store).args(arguments).arg("--json").output().expect("inspect runs");
    assert_ne!(output.status.code(), Some(2), "inspect {arguments:?}: {}", errors(&output));
    output
}

fn objects(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
