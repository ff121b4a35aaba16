//! What RocketMQ itself gave for each store: `stores.json` and the JSON lines it names.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use mqlog::StoreOptions;
use serde_json::Value;
use tempfile::TempDir;

use crate::disk::untar;

/// Queue offset range and entries of each queue.
pub(crate) type Queues = BTreeMap<(String, i32), Queue>;

/// Topic and key, and the log offsets of the records that have it, newest first.
pub(crate) type Keys = BTreeMap<(String, String), Vec<u64>>;

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Queue {
    pub(crate) range: Range<u64>,
    /// `queue_offset`, `log_offset`, `record_bytes`, `tags_code`.
    pub(crate) entries: Vec<[i64; 4]>,
}

/// The folder that is compared: `MQLOG_GOLDEN_DIR`, or the selection that lies beside this file.
pub(crate) struct Golden {
    archives: PathBuf,
    /// Where the expected files are when they come packed.
    unpacked: Option<TempDir>,
    pub(crate) stores: Vec<Store>,
}

/// One store of the folder.
pub(crate) struct Store {
    pub(crate) name: String,
    pub(crate) ended: String,
    facts: Value,
}

impl Golden {
    pub(crate) fn open() -> Self {
        let selection = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data");
        let archives = env::var_os("MQLOG_GOLDEN_DIR").map_or(selection, PathBuf::from);
        let packed = archives.join("expected.tar.gz");
        let unpacked = packed.exists().then(|| {
            let folder = TempDir::new().expect("a scratch folder can be made");
            untar(&packed, folder.path());
            folder
        });
        let list = fs::read(archives.join("stores.json")).expect("the folder has stores.json");
        let list: BTreeMap<String, Value> = match serde_json::from_slice(&list) {
            Ok(Value::Object(stores)) => stores.into_iter().collect(),
            other => panic!("stores.json is not an object of stores: {other:?}"),
        };
        let store = |(name, facts): (String, Value)| Store { name, ended: text(&facts["ended"]), facts };
        Self { archives, unpacked, stores: list.into_iter().map(store).collect() }
    }

    pub(crate) fn archives(&self) -> &Path {
        &self.archives
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        let folder = self.unpacked.as_ref().map_or(self.archives.as_path(), TempDir::path);
        let lines = fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        lines.lines().map(|line| serde_json::from_str(line).expect("an expected file holds JSON lines")).collect()
    }

    /// The records that RocketMQ shows.
    pub(crate) fn records(&self, store: &Store) -> Vec<Value> {
        let mut records = self.undamaged_records(store);
        records.truncate(store.count("/expected/log_records"));
        records
    }

    /// The records of the log of which this store is a damaged copy; of an undamaged store its own.
    pub(crate) fn undamaged_records(&self, store: &Store) -> Vec<Value> {
        self.lines(&text(&store.facts["expected"]["log"]))
    }

    /// The queues as RocketMQ's recovery left them.
    pub(crate) fn queues(&self, store: &Store) -> Queues {
        queues(&self.lines(&text(&store.facts["expected"]["queues"])))
    }

    /// The queues as they are when every record has its right entry, where that is something else.
    pub(crate) fn full_queues(&self, store: &Store) -> Option<Queues> {
        let file = store.facts["expected"].get("full_queues")?;
        Some(queues(&self.lines(&text(file))))
    }

    pub(crate) fn keys(&self, store: &Store) -> Keys {
        let lines = self.lines(&text(&store.facts["expected"]["keys"]));
        let offsets = |line: &Value| line["log_offsets"].as_array().expect("log_offsets is an array").clone();
        let offsets = |line: &Value| offsets(line).iter().map(|offset| offset.as_u64().expect("an offset")).collect();
        lines.iter().map(|line| ((text(&line["topic"]), text(&line["key"])), offsets(line))).collect()
    }
}

impl Store {
    /// A number of `stores.json`.
    pub(crate) fn count(&self, pointer: &str) -> usize {
        let number = self.facts.pointer(pointer).and_then(Value::as_u64);
        let number = number.unwrap_or_else(|| panic!("{} has no {pointer}", self.name));
        usize::try_from(number).expect("counts are small")
    }

    pub(crate) fn log_range(&self) -> Range<u64> {
        let offset = |name: &str| self.count(&format!("/expected_from/{name}")) as u64;
        offset("min_log_offset")..offset("max_log_offset")
    }

    /// The name of the store of which this one is a damaged copy, or its own.
    pub(crate) fn undamaged_name(&self) -> String {
        let log = text(&self.facts["expected"]["log"]);
        log.strip_suffix(".log.jsonl").expect("log files are named for their store").to_owned()
    }

    /// Does the log go on with whole records behind damage? RocketMQ ends it there, mqlog does not.
    pub(crate) fn is_damaged_inside(&self) -> bool {
        ["torn_hole", "torn_mid", "one header byte"].iter().any(|damage| self.ended.ends_with(damage))
    }

    /// Is something behind the last whole record that an opening cuts?
    pub(crate) fn is_torn(&self) -> bool {
        ["tail_garbage", "torn_body", "torn_header", "torn_zero"].iter().any(|damage| self.ended.ends_with(damage))
    }

    /// The options that the store was written with.
    pub(crate) fn options(&self, options: StoreOptions) -> StoreOptions {
        let list = self.facts["options"].as_array().expect("options is an array");
        let list: Vec<String> = list.iter().map(text).collect();
        let with_crc = options.record_crc(false);
        list.chunks(2).fold(with_crc, |options, pair| {
            let [name, value] = pair else { panic!("options are pairs") };
            let number = || value.parse().expect("a size is a number");
            match name.as_str() {
                "--commit-log-file-bytes" => options.log_file_bytes(u64::from(number())),
                "--queue-file-entries" => options.queue_file_entries(number()),
                "--batch-queue-file-entries" => options.batch_queue_file_entries(number()),
                "--index-slots" => options.index_slots(number()),
                "--index-entries" => options.index_entries(number()),
                "--record-crc" => options.record_crc(value == "on"),
                // What these switch on in RocketMQ, mqlog finds in the records and folders themselves.
                "--batch-topics" | "--lmq" | "--queue-ext-file-bytes" => options,
                _ => panic!("unknown option {name}"),
            }
        })
    }

    /// A size that the store was written with.
    pub(crate) fn size(&self, option: &str) -> u64 {
        let list = self.facts["options"].as_array().expect("options is an array");
        let at = list.iter().position(|name| name == option).expect("the size is given");
        text(&list[at + 1]).parse().expect("a size is a number")
    }
}

fn queues(lines: &[Value]) -> Queues {
    let mut queues = Queues::new();
    for line in lines {
        let number = |name: &str| line[name].as_i64().unwrap_or_else(|| panic!("{name} is missing in {line}"));
        let id = i32::try_from(number("queue_id")).expect("queue ids are 32 bits");
        let queue = queues.entry((text(&line["topic"]), id)).or_default();
        if line.get("min").is_some() {
            let offset = |name: &str| u64::try_from(number(name)).expect("offsets are not negative");
            queue.range = offset("min")..offset("max");
        } else {
            queue.entries.push(["queue_offset", "log_offset", "record_bytes", "tags_code"].map(number));
        }
    }
    queues
}

/// The keys of records, as a key query should find them: of every record but those of rolled-back transactions.
pub(crate) fn keys_of(records: &[Value]) -> Keys {
    let mut keys = Keys::new();
    for record in records.iter().rev() {
        const ROLLED_BACK: i64 = 0b1100;
        if record["sys_flag"].as_i64().expect("a record has a sys_flag") & ROLLED_BACK == ROLLED_BACK {
            continue;
        }
        let property = |name: &str| record["properties"].get(name).map(text).unwrap_or_default();
        let (words, unique) = (property("KEYS"), property("UNIQ_KEY"));
        for key in words.split(' ').chain([unique.as_str()]).filter(|key| !key.is_empty()) {
            let offsets = keys.entry((text(&record["topic"]), key.to_owned())).or_default();
            let offset = record["log_offset"].as_u64().expect("a record has a log offset");
            if offsets.last() != Some(&offset) {
                offsets.push(offset);
            }
        }
    }
    keys
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text")).to_owned()
}
