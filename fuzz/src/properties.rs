//! Any bytes as encoded properties.

use mqlog::format::batch::stored_properties;
use mqlog::format::java_hash::{index_hash, index_key_hash, java_hash, tags_code};
use mqlog::format::properties::{NAME_END, Properties, VALUE_END, push};
use mqlog::format::record::{CRC_PROPERTY_BYTES, CrcProperty};

type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The pairs are those of a reader that knows only the rule, with the last separator and without; they can be written
/// again, and two lists can be joined.
pub fn properties(bytes: &[u8]) -> bool {
    let pairs = read(bytes);
    assert_eq!(pairs, by_the_rule(bytes));
    if let Some(shorter) = bytes.strip_suffix(&[VALUE_END]) {
        assert_eq!(read(shorter), pairs, "the last separator may be missing");
    }
    for (name, _) in &pairs {
        if let Ok(name) = str::from_utf8(name) {
            let last = pairs.iter().rfind(|(other, _)| *other == name.as_bytes()).map(|(_, value)| *value);
            assert_eq!(Properties::new(bytes).get(name), last);
            let text = last.map(String::from_utf8_lossy);
            assert_eq!(Properties::new(bytes).get_str(name), text);
        }
    }
    round_trip(&pairs);
    joined(bytes);
    crc_property(bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        hashes(text);
    }
    !pairs.is_empty()
}

fn read(bytes: &[u8]) -> Pairs<'_> {
    Properties::new(bytes).iter().collect()
}

fn by_the_rule(bytes: &[u8]) -> Pairs<'_> {
    let mut pairs = Vec::new();
    for segment in bytes.split(|byte| *byte == VALUE_END) {
        if let Some(at) = segment.iter().position(|byte| *byte == NAME_END) {
            let (name, value) = (&segment[..at], &segment[at + 1..]);
            if !name.is_empty() && !value.is_empty() {
                pairs.push((name, value));
            }
        }
    }
    pairs
}

fn round_trip(pairs: &Pairs<'_>) {
    let texts: Option<Vec<_>> =
        pairs.iter().map(|(name, value)| Some((str::from_utf8(name).ok()?, str::from_utf8(value).ok()?))).collect();
    if let Some(texts) = texts {
        let mut out = Vec::new();
        texts.iter().for_each(|(name, value)| push(&mut out, name, value));
        assert_eq!(read(&out), *pairs);
    }
}

/// The properties of a batch's message, then those of the batch.
fn joined(bytes: &[u8]) {
    let (item, batch) = bytes.split_at(bytes.first().map_or(0, |first| usize::from(*first) % bytes.len()));
    let mut out = Vec::new();
    stored_properties(item, batch, &mut out);
    assert_eq!(read(&out), [read(item), read(batch)].concat());
}

fn crc_property(bytes: &[u8]) {
    match CrcProperty::of(bytes) {
        CrcProperty::Absent => {}
        CrcProperty::Present(value) => {
            let mut property = *b"__CRC32#\x010000000000\x02";
            mqlog::format::record::write_crc_digits(&mut property, value);
            assert_eq!(property[..], bytes[bytes.len() - CRC_PROPERTY_BYTES..]);
        }
        CrcProperty::Damaged => assert!(bytes.len() >= CRC_PROPERTY_BYTES),
    }
}

fn hashes(text: &str) {
    let by_the_rule = text.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    assert_eq!(java_hash(text), by_the_rule);
    assert_eq!(tags_code(text), i64::from(by_the_rule));
    assert!(index_hash(text) <= i32::MAX as u32);
    if let Some((topic, key)) = text.split_once('#') {
        assert_eq!(index_key_hash(topic, key), index_hash(text));
    }
}
