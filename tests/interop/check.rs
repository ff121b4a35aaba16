//! What two stores say, compared field by field. Every function counts what it compared and refuses an answer that has less
//! or more than was asked for, so that a comparison of nothing cannot pass.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use crate::random::{PREPARED, ROLLBACK};

pub(crate) type Fields = Map<String, Value>;
/// The log offsets of the records that have a key, newest first, by topic and key.
pub(crate) type Keys = BTreeMap<(String, String), Vec<u64>>;

/// RocketMQ's property with the checksum of the whole record.
const RECORD_CRC: &str = "__CRC32#";
/// A blank needs this many bytes at the end of a log file.
const BLANK_BYTES: u64 = 8;

/// A record that must be in the log.
#[derive(Clone)]
pub(crate) struct Expected {
    /// The fields that are known; the store may show more.
    pub(crate) fields: Fields,
    /// Whether its writer adds the record CRC.
    pub(crate) record_crc: bool,
}

/// Compares records with what was put; `acknowledged` of the expected ones must be there, the others may.
pub(crate) fn log(expected: &[Expected], acknowledged: usize, shown: &[Value]) -> Result<usize, String> {
    if shown.len() < acknowledged {
        return Err(format!("{acknowledged} records were acknowledged, the log has {}", shown.len()));
    }
    if shown.len() > expected.len() {
        return Err(format!("{} records were put, the log has {}", expected.len(), shown.len()));
    }
    for (expected, shown) in expected.iter().zip(shown) {
        record(expected, shown)?;
    }
    Ok(shown.len())
}

fn record(expected: &Expected, shown: &Value) -> Result<(), String> {
    let mut shown = shown.as_object().cloned().ok_or_else(|| format!("no record: {shown}"))?;
    let crc = shown.get_mut("properties").and_then(Value::as_object_mut).and_then(|all| all.remove(RECORD_CRC));
    if crc.is_some() != expected.record_crc {
        return Err(format!("record CRC {crc:?} of the record at {:?}", shown.get("log_offset")));
    }
    for (name, value) in &expected.fields {
        same(name, value, shown.get(name).unwrap_or(&Value::Null), &shown)?;
    }
    Ok(())
}

/// Compares two stores' answers for the whole log, all fields.
pub(crate) fn same_log(expected: &[Value], shown: &[Value]) -> Result<usize, String> {
    if expected.len() != shown.len() {
        return Err(format!("{} records expected, {} shown", expected.len(), shown.len()));
    }
    for (expected, shown) in expected.iter().zip(shown) {
        let (Some(expected), Some(shown)) = (expected.as_object(), shown.as_object()) else {
            return Err(format!("no records: {expected}, {shown}"));
        };
        if let Some(name) = shown.keys().find(|name| !expected.contains_key(*name)) {
            return Err(format!("the field {name} is in only one of the answers"));
        }
        for (name, value) in expected {
            same(name, value, shown.get(name).unwrap_or(&Value::Null), shown)?;
        }
    }
    Ok(shown.len())
}

fn same(name: &str, expected: &Value, shown: &Value, record: &Fields) -> Result<(), String> {
    if expected == shown {
        return Ok(());
    }
    let short = |value: &Value| value.to_string().chars().take(300).collect::<String>();
    let offset = record.get("log_offset").unwrap_or(&Value::Null);
    Err(format!("{name} of the record at {offset}: {} expected, {} shown", short(expected), short(shown)))
}

/// Each record begins where the one before ends, or at the next log file if that one has no room for what was put at once and
/// a blank; store times never go back.
pub(crate) fn layout(records: &[Value], log_file_bytes: u64) -> Result<(), String> {
    let (mut end, mut last_ms) = (0, 0);
    for (n, record) in records.iter().enumerate() {
        let (offset, bytes, ms) = (at(record, "log_offset")?, at(record, "record_bytes")?, at(record, "store_ms")?);
        let next_file = end - end % log_file_bytes + log_file_bytes;
        let rolled = offset == next_file && end + unit_bytes(&records[n..])? + BLANK_BYTES > next_file;
        if offset != end && !rolled {
            return Err(format!("the record at {offset} follows one that ends at {end}"));
        }
        if ms < last_ms {
            return Err(format!("the store time of the record at {offset} goes back from {last_ms} to {ms}"));
        }
        (end, last_ms) = (offset + bytes, ms);
    }
    Ok(())
}

/// The bytes of the batch that these records begin with, which never spans two files. Random messages that share their time of
/// birth, and only they, are of one batch.
fn unit_bytes(records: &[Value]) -> Result<u64, String> {
    let born = |record: &Value| (record["born_ms"].clone(), record["born_host"].clone());
    let unit = records.iter().take_while(|record| born(record) == born(&records[0]));
    unit.map(|record| at(record, "record_bytes")).sum()
}

/// The queue entries that a log must have; the queue offsets in its records must count from 0 without a hole.
pub(crate) fn entries(records: &[Value]) -> Result<Vec<Value>, String> {
    entries_from(records, |_| 0)
}

/// As [`entries`], where queues count from `first`.
pub(crate) fn entries_from(records: &[Value], first: fn(&(String, u64)) -> u64) -> Result<Vec<Value>, String> {
    let mut next: BTreeMap<(String, u64), u64> = BTreeMap::new();
    let mut entries = Vec::new();
    for record in records {
        if matches!(transaction(record)?, PREPARED | ROLLBACK) {
            continue;
        }
        let queue = (topic(record)?.to_owned(), at(record, "queue_id")?);
        let next = next.entry(queue.clone()).or_insert_with(|| first(&queue));
        if at(record, "queue_offset")? != *next {
            return Err(format!("queue {queue:?} has no record {next}, but {record:.200}"));
        }
        entries.push(json!({
            "topic": queue.0,
            "queue_id": queue.1,
            "queue_offset": next,
            "log_offset": record["log_offset"],
            "record_bytes": record["record_bytes"],
            "tags_code": property(record, "TAGS").map_or(0, java_hash),
        }));
        *next += 1;
    }
    Ok(entries)
}

/// Compares all queues with the log.
pub(crate) fn queues(records: &[Value], shown: &[Value]) -> Result<usize, String> {
    same_set(entries(records)?, shown.to_vec())
}

pub(crate) fn same_set(mut expected: Vec<Value>, mut shown: Vec<Value>) -> Result<usize, String> {
    let order =
        |entry: &Value| (entry["topic"].to_string(), at(entry, "queue_id").ok(), at(entry, "queue_offset").ok());
    expected.sort_by_key(order);
    shown.sort_by_key(order);
    if let Some((expected, shown)) = expected.iter().zip(&shown).find(|(expected, shown)| expected != shown) {
        return Err(format!("queue entry {expected} expected, {shown} shown"));
    }
    if expected.len() != shown.len() {
        return Err(format!("{} queue entries expected, {} shown", expected.len(), shown.len()));
    }
    Ok(shown.len())
}

/// The keys that a log has: the words of `KEYS` and the `UNIQ_KEY` of all records but rolled-back ones.
pub(crate) fn keys_of(records: &[Value]) -> Result<Keys, String> {
    let mut keys = Keys::new();
    for record in records.iter().rev() {
        if transaction(record)? == ROLLBACK {
            continue;
        }
        let words = property(record, "KEYS").unwrap_or_default().split(' ').filter(|key| !key.is_empty());
        for key in words.chain(property(record, "UNIQ_KEY")) {
            let offsets = keys.entry((topic(record)?.to_owned(), key.to_owned())).or_default();
            let offset = at(record, "log_offset")?;
            if offsets.last() != Some(&offset) {
                offsets.push(offset);
            }
        }
    }
    Ok(keys)
}

/// Compares answers for all keys with the log.
pub(crate) fn keys(records: &[Value], shown: &Keys) -> Result<usize, String> {
    let expected = keys_of(records)?;
    for (key, offsets) in &expected {
        if shown.get(key) != Some(offsets) {
            return Err(format!("key {key:?} is in the records at {offsets:?}, shown: {:?}", shown.get(key)));
        }
    }
    if let Some(key) = shown.keys().find(|key| !expected.contains_key(*key)) {
        return Err(format!("key {key:?} is in no record"));
    }
    Ok(expected.len())
}

/// Fails when less was compared than was written.
pub(crate) fn at_least(compared: usize, written: usize, what: &str) -> Result<(), String> {
    if compared < written { Err(format!("only {compared} of {written} {what} were compared")) } else { Ok(()) }
}

fn transaction(record: &Value) -> Result<i32, String> {
    Ok(at(record, "sys_flag")? as i32 & ROLLBACK)
}

fn topic(record: &Value) -> Result<&str, String> {
    record["topic"].as_str().ok_or_else(|| format!("no topic: {record:.200}"))
}

fn property<'a>(record: &'a Value, name: &str) -> Option<&'a str> {
    record["properties"].get(name)?.as_str()
}

pub(crate) fn at(value: &Value, name: &str) -> Result<u64, String> {
    value[name].as_u64().ok_or_else(|| format!("{name} is no number of 0 or more: {value:.200}"))
}

/// Java does not shorten IPv6 addresses: brings the hosts of a record into the form of RFC 5952.
pub(crate) fn shorten_hosts(record: &mut Value) -> Result<(), String> {
    for name in ["born_host", "store_host"] {
        let host = record[name].as_str().ok_or_else(|| format!("no {name}"))?;
        let host: SocketAddr = host.parse().map_err(|error| format!("{name} {host}: {error}"))?;
        record[name] = json!(host.to_string());
    }
    Ok(())
}

/// Java's `String.hashCode`, as the 64 bits of a tags code.
pub(crate) fn java_hash(text: &str) -> i64 {
    i64::from(text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit))))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::units;

    /// A small log as a store would show it, and what was put.
    fn sample() -> (Vec<Expected>, Vec<Value>) {
        let (mut offset, mut next) = (0_u64, BTreeMap::<(String, u64), u64>::new());
        let mut expected = Vec::new();
        for mut fields in units(7, 40).iter().flat_map(|unit| unit.expected()) {
            let bytes = 100 + fields["body_hex"].as_str().map_or(0, str::len) as u64 / 2;
            let shown = Value::Object(fields.clone());
            let queue = (topic(&shown).unwrap().to_owned(), at(&shown, "queue_id").unwrap());
            let queued = !matches!(transaction(&shown).unwrap(), PREPARED | ROLLBACK);
            let queue_offset = if queued { next.entry(queue).or_default() } else { &mut 0 };
            fields.insert("log_offset".into(), json!(offset));
            fields.insert("record_bytes".into(), json!(bytes));
            fields.insert("queue_offset".into(), json!(*queue_offset));
            fields.insert("store_ms".into(), json!(1_800_000_000_000 + offset));
            *queue_offset += 1;
            offset += bytes;
            expected.push(Expected { fields, record_crc: false });
        }
        let shown = expected.iter().map(|record| Value::Object(record.fields.clone())).collect();
        (expected, shown)
    }

    fn changed(value: &Value) -> Value {
        match value {
            Value::String(text) => {
                // One byte of the text, in its middle, so that a changed body differs in one digit only.
                let mut text: Vec<char> = text.chars().collect();
                let middle = text.len() / 2;
                match text.get_mut(middle) {
                    Some(letter) => *letter = if *letter == '0' { '1' } else { '0' },
                    None => text.push('0'),
                }
                json!(text.into_iter().collect::<String>())
            }
            Value::Number(number) => json!(number.as_i64().unwrap() ^ 1),
            Value::Object(fields) => {
                let mut fields = fields.clone();
                match fields.iter_mut().next() {
                    Some((_, value)) => *value = changed(value),
                    None => drop(fields.insert("new".into(), json!("value"))),
                }
                Value::Object(fields)
            }
            other => panic!("no such field: {other}"),
        }
    }

    #[test]
    fn an_equal_log_is_equal_and_a_change_in_any_field_of_any_record_is_found() {
        let (expected, shown) = sample();
        assert_eq!(log(&expected, 40, &shown), Ok(40));
        assert_eq!(same_log(&shown, &shown), Ok(40));
        layout(&shown, 1 << 30).unwrap();
        for at in 0..shown.len() {
            for name in expected[at].fields.keys() {
                let mut other = shown.clone();
                other[at][name] = changed(&other[at][name]);
                assert!(log(&expected, 40, &other).is_err(), "{name} of record {at} was changed");
                assert!(same_log(&shown, &other).is_err(), "{name} of record {at} was changed");
            }
        }
    }

    #[test]
    fn lost_invented_and_swapped_records_are_found() {
        let (expected, shown) = sample();
        assert!(log(&expected, 40, &shown[..39]).is_err());
        assert!(log(&expected[..39], 39, &shown).is_err());
        assert!(log(&expected, 40, &[]).is_err());
        assert!(same_log(&shown, &shown[..39]).is_err());
        assert!(same_log(&shown[..39], &shown).is_err());
        let mut swapped = shown.clone();
        swapped.swap(3, 4);
        assert!(log(&expected, 40, &swapped).is_err());
        assert!(layout(&swapped, 1 << 30).is_err());
        // A killed writer may leave fewer than were put, but not fewer than were acknowledged.
        assert_eq!(log(&expected, 30, &shown[..35]), Ok(35));
    }

    #[test]
    fn a_record_checksum_must_be_there_exactly_if_its_writer_adds_it() {
        let (mut expected, mut shown) = sample();
        shown[5]["properties"][RECORD_CRC] = json!("0123456789");
        assert!(log(&expected, 40, &shown).is_err());
        expected[5].record_crc = true;
        assert_eq!(log(&expected, 40, &shown), Ok(40));
        expected[6].record_crc = true;
        assert!(log(&expected, 40, &shown).is_err());
    }

    #[test]
    fn a_change_in_any_queue_entry_is_found() {
        let (_, shown) = sample();
        let right = entries(&shown).unwrap();
        assert_eq!(queues(&shown, &right), Ok(right.len()));
        for at in 0..right.len() {
            for name in ["topic", "queue_id", "queue_offset", "log_offset", "record_bytes", "tags_code"] {
                let mut other = right.clone();
                other[at][name] = changed(&other[at][name]);
                assert!(queues(&shown, &other).is_err(), "{name} of entry {at} was changed");
            }
            let mut other = right.clone();
            other.remove(at);
            assert!(queues(&shown, &other).is_err());
        }
    }

    #[test]
    fn a_hole_in_a_queue_is_found() {
        let (_, mut shown) = sample();
        let at = shown.iter().position(|record| record["queue_offset"] == json!(1)).unwrap();
        shown[at]["queue_offset"] = json!(2);
        assert!(entries(&shown).is_err());
    }

    #[test]
    fn a_wrong_answer_for_any_key_is_found() {
        let (_, shown) = sample();
        let right = keys_of(&shown).unwrap();
        assert!(right.len() > 20);
        assert_eq!(keys(&shown, &right), Ok(right.len()));
        for key in right.keys() {
            for change in [0, 1] {
                let mut other = right.clone();
                let offsets = other.get_mut(key).unwrap();
                if change == 0 {
                    offsets.truncate(offsets.len() - 1);
                } else {
                    offsets[0] += 1;
                }
                assert!(keys(&shown, &other).is_err());
            }
            let mut other = right.clone();
            other.remove(key);
            assert!(keys(&shown, &other).is_err());
        }
        let mut other = right;
        other.insert(("orders".into(), "nobody".into()), vec![0]);
        assert!(keys(&shown, &other).is_err());
    }

    #[test]
    fn hashes_and_hosts_are_as_java_has_them() {
        assert_eq!(java_hash("TagA"), 2_598_919);
        assert_eq!(java_hash("polygenelubricants"), -2_147_483_648);
        assert_eq!(java_hash("\u{1F600}"), 1_772_899);
        let mut record = json!({"born_host": "[2001:db8:0:0:0:0:0:1]:7", "store_host": "10.0.0.1:10911"});
        shorten_hosts(&mut record).unwrap();
        assert_eq!(record, json!({"born_host": "[2001:db8::1]:7", "store_host": "10.0.0.1:10911"}));
    }
}
