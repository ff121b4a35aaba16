//! The cases: two versions of RocketMQ, the record CRC on and off, both ways, closed and killed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use ::mqlog::format::record::SysFlag;
use ::mqlog::{Message, MessageStore, StoreOptions};
use serde_json::Value;
use tempfile::TempDir;

use crate::check::{self, Expected, Fields, Keys};
use crate::maven::{self, Version};
use crate::mqlog::{self, End};
use crate::parameter::parameter;
use crate::process::{contents, json_lines};
use crate::program::{run, text};
use crate::random::{Random, Unit, units};
use crate::rocketmq::{self, Lines};

/// Small files, so that the log, each queue and the index have several.
const LOG_FILE_BYTES: u64 = 1 << 20;
const SIZES: [&str; 8] = [
    "--commit-log-file-bytes",
    "1048576",
    "--queue-file-entries",
    "50",
    "--index-slots",
    "200",
    "--index-entries",
    "500",
];
/// Messages in the store that the other side opens.
const FIRST: usize = 700;
/// Messages that the other side appends.
const SECOND: usize = 1000;
/// An `inspect key` is a process: of the keys that occur once, it is asked for these many.
const UNIQUE_KEYS: usize = 30;

/// Whether the suite is to run; says why if not.
fn enabled(test: &str) -> bool {
    maven::enabled("interop", "MQLOG_INTEROP", test)
}

fn say(line: &str) {
    maven::say("interop", line);
}

/// One store, and who reads and writes it.
struct Case {
    version: Version,
    record_crc: bool,
    killed: bool,
    seed: u64,
    folder: PathBuf,
    scratch: PathBuf,
}

impl Case {
    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// The options of a store in the making, for both sides.
    fn options(&self) -> Vec<String> {
        let crc = ["--record-crc", if self.record_crc { "on" } else { "off" }];
        let flush = ["--flush", if self.killed == self.record_crc { "sync" } else { "async" }];
        SIZES.iter().chain(&crc).chain(&flush).map(ToString::to_string).collect()
    }

    /// mqlog's options for an existing store: half of the cases leave it to mqlog to find the sizes.
    fn reopen_options(&self) -> Vec<String> {
        self.options().split_off(if self.record_crc { 0 } else { SIZES.len() })
    }

    fn rocketmq(&self, command: &str, seed: u64, words: &[&str]) -> Result<Lines, String> {
        let count = match command {
            "write" => FIRST,
            "append" => SECOND,
            _ => 0,
        };
        let numbers = if count > 0 { vec![seed.to_string(), count.to_string()] } else { Vec::new() };
        let words = numbers.into_iter().chain(self.options()).chain(words.iter().map(ToString::to_string));
        let lines = rocketmq::tool(self.version, command, &self.store(), &words.collect::<Vec<_>>(), &self.scratch)?;
        if lines.acknowledged.len() != count {
            return Err(format!("RocketMQ acknowledged {} of {count}", lines.acknowledged.len()));
        }
        Ok(lines)
    }

    fn import(&self, options: &[String], units: &[Unit], end: End) -> Result<Vec<Value>, String> {
        let lines = units.iter().map(Unit::line).collect();
        mqlog::import(&self.store(), options, lines, end, &self.scratch)
    }

    /// What RocketMQ acknowledged.
    fn expected_of(&self, acknowledged: &[Value]) -> Vec<Expected> {
        let record_crc = rocketmq::adds_record_crc(self.version, self.record_crc);
        let fields = acknowledged.iter().filter_map(Value::as_object);
        fields.map(|fields| Expected { fields: fields.clone(), record_crc }).collect()
    }

    /// What mqlog was asked to put, each with its acknowledgement as far as they go; and how many have one.
    fn expected(&self, units: &[Unit], acks: &[Value]) -> Result<(Vec<Expected>, usize), String> {
        let mut expected = Vec::new();
        let mut acknowledged = 0;
        for (n, unit) in units.iter().enumerate() {
            let mut places = acks.get(n).map(|ack| unit.acknowledged(ack)).transpose()?.unwrap_or_default().into_iter();
            acknowledged += places.len();
            for mut fields in unit.expected() {
                if let Some(place) = places.next() {
                    known(&place)?;
                    fields.extend(place);
                }
                expected.push(Expected { fields, record_crc: self.record_crc });
            }
        }
        Ok((expected, acknowledged))
    }

    /// What `inspect` shows of a store that nobody has open: it must leave each file as it is.
    fn inspected_log(&self) -> Result<Vec<Value>, String> {
        let before = contents(&self.store())?;
        let shown = mqlog::log(&self.store(), &self.scratch)?;
        if contents(&self.store())? != before {
            return Err("inspect changed a file".into());
        }
        Ok(shown)
    }

    /// Compares queues and keys as `inspect` shows them with the log, and lets it verify the store.
    fn inspect_derived(&self, records: &[Value], counts: &mut Counts) -> Result<(), String> {
        let entries = check::entries(records)?;
        let queue =
            |entry: &Value| Ok((entry["topic"].as_str().unwrap_or_default().into(), check::at(entry, "queue_id")?));
        let queues = entries.iter().map(queue).collect::<Result<BTreeSet<(String, u64)>, String>>()?;
        let queues: Vec<(String, u64)> = queues.into_iter().collect();
        counts.inspected_entries += check::queues(records, &mqlog::queues(&self.store(), &queues, &self.scratch)?)?;
        counts.inspected_keys += self.inspect_keys(records)?;
        mqlog::verify(&self.store(), &self.scratch)
    }

    fn inspect_keys(&self, records: &[Value]) -> Result<usize, String> {
        let expected = asked(check::keys_of(records)?);
        for ((topic, key), offsets) in &expected {
            let shown = mqlog::key(&self.store(), topic, key, &self.scratch)?;
            let by_offset = |offset: &u64| records.iter().find(|record| record["log_offset"] == *offset).cloned();
            let wanted: Vec<Value> = offsets.iter().filter_map(by_offset).collect();
            check::same_log(&wanted, &shown).map_err(|error| format!("key {key} of {topic}: {error}"))?;
        }
        let nobody = mqlog::key(&self.store(), "orders", "nobody", &self.scratch)?;
        if nobody.is_empty() { Ok(expected.len()) } else { Err(format!("a key that nobody has gives {nobody:?}")) }
    }
}

/// All keys that several records have, and some of the others.
fn asked(keys: Keys) -> Keys {
    let (several, single): (Keys, Keys) = keys.into_iter().partition(|(_, offsets)| offsets.len() > 1);
    let step = single.len() / UNIQUE_KEYS + 1;
    several.into_iter().chain(single.into_iter().step_by(step)).collect()
}

fn known(place: &Fields) -> Result<(), String> {
    let names: Vec<&str> = place.keys().map(String::as_str).collect();
    let right = ["log_offset", "message_id", "queue_offset", "record_bytes"];
    if names == right { Ok(()) } else { Err(format!("an acknowledgement has the fields {names:?}")) }
}

/// How much was compared.
#[derive(Default)]
struct Counts {
    acknowledged: usize,
    appended: usize,
    rocketmq_records: usize,
    rocketmq_entries: usize,
    rocketmq_keys: usize,
    inspected_records: usize,
    inspected_entries: usize,
    inspected_keys: usize,
}

impl Counts {
    fn rocketmq(&mut self, records: &[Value], lines: &Lines) -> Result<(), String> {
        self.rocketmq_records += check::same_log(records, &lines.log)?;
        self.rocketmq_entries += check::queues(records, &lines.queues)?;
        self.rocketmq_keys += check::keys(records, &lines.keys)?;
        Ok(())
    }

    fn enough(&self, rocketmq: usize, inspected: usize) -> Result<(), String> {
        check::at_least(self.acknowledged, FIRST / 2, "first messages")?;
        check::at_least(self.appended, SECOND, "appended messages")?;
        check::at_least(self.rocketmq_records, rocketmq, "records in RocketMQ")?;
        check::at_least(self.inspected_records, inspected, "records in mqlog")?;
        // Prepared and rolled-back messages are in no queue; two of three messages have keys, a few of them each.
        check::at_least(self.rocketmq_entries, rocketmq * 9 / 10, "queue entries in RocketMQ")?;
        check::at_least(self.inspected_entries, (self.acknowledged + SECOND) * 9 / 10, "queue entries in mqlog")?;
        check::at_least(self.rocketmq_keys, rocketmq / 4, "keys in RocketMQ")?;
        check::at_least(self.inspected_keys, UNIQUE_KEYS, "keys in mqlog")
    }
}

/// mqlog writes, RocketMQ reads and appends, mqlog reads.
fn from_mqlog(case: &Case, counts: &mut Counts) -> Result<(), String> {
    let (units, end) = if case.killed {
        (units(case.seed, 4 * FIRST), End::KilledAfter(FIRST * 3 / 4 + Random::new(case.seed).below(FIRST / 4)))
    } else {
        (units(case.seed, FIRST), End::Closed)
    };
    let acks = case.import(&case.options(), &units, end)?;
    let (expected, acknowledged) = case.expected(&units, &acks)?;
    let records = case.inspected_log().map_err(|error| format!("before RocketMQ: {error}"))?;
    counts.acknowledged = acknowledged;
    counts.inspected_records += check::log(&expected, acknowledged, &records)?;
    check::layout(&records, LOG_FILE_BYTES)?;
    if !case.killed && records.len() != expected.len() {
        return Err(format!("{} records were put, {} shown", expected.len(), records.len()));
    }

    let kill: &[&str] = if case.killed { &["--read", "--kill"] } else { &["--read"] };
    let lines = case.rocketmq("append", case.seed + 1, kill)?;
    counts.rocketmq(&records, &lines)?;
    counts.appended = lines.acknowledged.len();

    let mut expected: Vec<Expected> = Vec::new();
    let put_by_mqlog = records.iter().filter_map(Value::as_object).cloned();
    expected.extend(put_by_mqlog.map(|fields| unsealed(fields, case.record_crc)));
    expected.extend(case.expected_of(&lines.acknowledged));
    check::log(&expected, expected.len(), &case.inspected_log()?)
        .map_err(|error| format!("after RocketMQ: {error}"))?;
    mqlog::recover(&case.store(), &case.reopen_options(), &case.scratch)?;
    let all = case.inspected_log()?;
    counts.inspected_records += check::log(&expected, expected.len(), &all)?;
    check::layout(&all, LOG_FILE_BYTES)?;
    case.inspect_derived(&all, counts)?;
    counts.enough(acknowledged, 2 * acknowledged + SECOND)
}

/// A record as it was shown, without its record CRC, which [`Expected`] has apart.
fn unsealed(mut fields: Fields, record_crc: bool) -> Expected {
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.remove("__CRC32#");
    }
    Expected { fields, record_crc }
}

/// RocketMQ writes, mqlog reads and appends, RocketMQ reads.
fn from_rocketmq(case: &Case, counts: &mut Counts) -> Result<(), String> {
    let kill: &[&str] = if case.killed { &["--kill"] } else { &[] };
    let written = case.rocketmq("write", case.seed, kill)?.acknowledged;
    let mut expected = case.expected_of(&written);
    counts.acknowledged = written.len();
    let shown = case.inspected_log().map_err(|error| format!("before mqlog opened it: {error}"))?;
    counts.inspected_records += check::log(&expected, expected.len(), &shown)?;
    mqlog::recover(&case.store(), &case.reopen_options(), &case.scratch)?;
    let records = case.inspected_log()?;
    check::same_log(&shown, &records)?;
    check::layout(&records, LOG_FILE_BYTES)?;
    case.inspect_derived(&records, counts)?;

    let units = units(case.seed + 1, SECOND);
    let acks = case.import(&case.reopen_options(), &units, End::Closed)?;
    let (appended, acknowledged) = case.expected(&units, &acks)?;
    counts.appended = acknowledged;
    expected.extend(appended);
    let all = case.inspected_log()?;
    counts.inspected_records += check::log(&expected, expected.len(), &all)?;
    case.inspect_derived(&all, counts)?;

    // It is the last reader: it need not spend seconds on closing.
    let lines = case.rocketmq("read", 0, &["--kill"])?;
    check::log(&expected, expected.len(), &lines.log)?;
    check::layout(&lines.log, LOG_FILE_BYTES)?;
    counts.rocketmq(&all, &lines)?;
    counts.enough(FIRST + SECOND, 2 * FIRST + SECOND)
}

type Way = fn(&Case, &mut Counts) -> Result<(), String>;

/// Runs the closed and the killed store of one way.
fn both_ends(test: &str, way: Way, version: Version, record_crc: bool) {
    for killed in [false, true] {
        let name = format!("{test}, {}", if killed { "killed" } else { "closed" });
        once(&name, way, version, record_crc, killed);
    }
}

fn once(name: &str, way: Way, version: Version, record_crc: bool, killed: bool) {
    if enabled(name) {
        let start = Instant::now();
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder takes files");
        let scratch = folder.path().join("scratch");
        std::fs::create_dir(&scratch).expect("a new folder takes files");
        let case = Case { version, record_crc, killed, seed: seed(), folder: folder.path().into(), scratch };
        let mut counts = Counts::default();
        if let Err(error) = way(&case, &mut counts) {
            let kept = folder.keep();
            panic!("{name} (seed {}): {error}\nthe store is kept in {}", case.seed, kept.display());
        }
        say(&format!(
            "{name}: {} acknowledged, then {} appended; compared in RocketMQ: {} records, {} queue entries, {} keys; \
             in mqlog: {} records, {} queue entries, {} keys; {:.1} s",
            counts.acknowledged,
            counts.appended,
            counts.rocketmq_records,
            counts.rocketmq_entries,
            counts.rocketmq_keys,
            counts.inspected_records,
            counts.inspected_entries,
            counts.inspected_keys,
            start.elapsed().as_secs_f64(),
        ));
    }
}

/// Each case may have the same seed: what differs is who writes.
fn seed() -> u64 {
    parameter("MQLOG_INTEROP_SEED", 20_240_808)
}

#[test]
fn rocketmq_5_3_3_reads_and_continues_a_store_of_mqlog_with_record_crc() {
    both_ends("mqlog -> RocketMQ 5.3.3, record CRC on", from_mqlog, Version::V533, true);
}

#[test]
fn rocketmq_5_3_3_reads_and_continues_a_store_of_mqlog_without_record_crc() {
    both_ends("mqlog -> RocketMQ 5.3.3, record CRC off", from_mqlog, Version::V533, false);
}

#[test]
fn rocketmq_4_9_8_reads_and_continues_a_store_of_mqlog_with_record_crc() {
    both_ends("mqlog -> RocketMQ 4.9.8, record CRC on", from_mqlog, Version::V498, true);
}

#[test]
fn rocketmq_4_9_8_reads_and_continues_a_store_of_mqlog_without_record_crc() {
    both_ends("mqlog -> RocketMQ 4.9.8, record CRC off", from_mqlog, Version::V498, false);
}

#[test]
fn mqlog_with_record_crc_reads_and_continues_a_store_of_rocketmq_5_3_3() {
    both_ends("RocketMQ 5.3.3 -> mqlog, record CRC on", from_rocketmq, Version::V533, true);
}

#[test]
fn mqlog_without_record_crc_reads_and_continues_a_store_of_rocketmq_5_3_3() {
    both_ends("RocketMQ 5.3.3 -> mqlog, record CRC off", from_rocketmq, Version::V533, false);
}

#[test]
fn mqlog_with_record_crc_reads_and_continues_a_store_of_rocketmq_4_9_8() {
    both_ends("RocketMQ 4.9.8 -> mqlog, record CRC on", from_rocketmq, Version::V498, true);
}

#[test]
fn mqlog_without_record_crc_reads_and_continues_a_store_of_rocketmq_4_9_8() {
    both_ends("RocketMQ 4.9.8 -> mqlog, record CRC off", from_rocketmq, Version::V498, false);
}

/// All messages of some queues are deleted and the queues' files lost. mqlog keeps where they ended, which once made RocketMQ 4.9
/// dispatch nothing of the store, and 5.3 nothing of these queues.
fn after_a_loss(case: &Case, counts: &mut Counts) -> Result<(), String> {
    let open =
        || MessageStore::open(StoreOptions::new(case.store()).log_file_bytes(LOG_FILE_BYTES).queue_file_entries(50));
    let prepare = || -> ::mqlog::Result<()> {
        let store = open()?;
        for number in 0..15 {
            store.put(Message::new("orders").queue(number % 3))?;
        }
        for _ in 0..40 {
            // In no queue.
            store.put(Message::new("fill").sys_flag(SysFlag::PREPARED).body(&[7; 64 * 1024]))?;
        }
        let end = store.flush()?;
        store.delete_before(end)?;
        store.close()
    };
    prepare().map_err(|error| error.to_string())?;
    std::fs::remove_dir_all(case.store().join("consumequeue/orders")).map_err(|error| error.to_string())?;
    open().and_then(MessageStore::close).map_err(|error| error.to_string())?;

    counts.appended = case.rocketmq("append", case.seed, &[])?.acknowledged.len();
    let records = case.inspected_log()?;
    let lines = case.rocketmq("read", 0, &["--kill"])?;
    let entries = check::entries_from(&records, |(topic, id)| if topic == "orders" && *id < 3 { 5 } else { 0 })?;
    counts.rocketmq_records += check::same_log(&records, &lines.log)?;
    counts.rocketmq_entries += check::same_set(entries, lines.queues)?;
    counts.rocketmq_keys += check::keys(&records, &lines.keys)?;
    mqlog::recover(&case.store(), &case.reopen_options(), &case.scratch)?;
    mqlog::verify(&case.store(), &case.scratch)?;
    check::at_least(counts.rocketmq_entries, SECOND * 9 / 10, "queue entries in RocketMQ")
}

#[test]
fn rocketmq_goes_on_behind_queues_whose_files_were_lost() {
    for version in [Version::V498, Version::V533] {
        once(&format!("after a loss, RocketMQ {}", version.name()), after_a_loss, version, true, false);
    }
}

/// The tool reads two of the golden stores as their expected files say: what it tells of other stores can be believed.
#[test]
fn the_tool_reads_golden_stores_as_their_expected_files_say() {
    if !enabled("golden stores through RocketMQ") {
        return;
    }
    let Some(golden) = std::env::var_os("MQLOG_GOLDEN_DIR").map(PathBuf::from) else {
        return say("skipped golden stores through RocketMQ: MQLOG_GOLDEN_DIR is not set");
    };
    for (version, store) in [(Version::V533, "v533_clean"), (Version::V498, "v498_clean")] {
        let compared = read_golden(&golden, version, store).unwrap_or_else(|error| panic!("{store}: {error}"));
        say(&format!("{store} through RocketMQ {}: {compared} lines compared", version.name()));
    }
}

fn read_golden(golden: &Path, version: Version, store: &str) -> Result<usize, String> {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(golden.join(format!("{store}.tar.gz"))).arg("-C").arg(folder.path());
    run(&mut tar, folder.path())?.ok()?;
    let sizes = ["--commit-log-file-bytes", "262144", "--queue-file-entries", "50", "--index-slots", "1000"];
    let words: Vec<String> =
        sizes.iter().chain(&["--index-entries", "1500", "--kill"]).map(ToString::to_string).collect();
    let lines = rocketmq::tool(version, "read", &folder.path().join(store), &words, folder.path())?;

    let expected = |kind: &str| {
        let text = text(&golden.join(format!("{store}.{kind}.jsonl")))?;
        json_lines(&text)
    };
    let compared = check::same_log(&expected("log")?, &lines.log)?;
    let entries: Vec<Value> = expected("queues")?.into_iter().filter(|line| line.get("min").is_none()).collect();
    let queues = check::same_set(entries, lines.queues)?;
    let mut keys = Keys::new();
    for line in expected("keys")? {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let offsets = line["log_offsets"].as_array().ok_or("no offsets")?.iter().filter_map(Value::as_u64).collect();
        keys.insert((text("topic"), text("key")), offsets);
    }
    if keys != lines.keys {
        return Err("other keys".into());
    }
    Ok(compared + queues + keys.len())
}
