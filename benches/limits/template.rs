//! The record that all rows write and read.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use mqlog::format::properties::{self, KEYS};
use mqlog::format::record::{
    CRC_PROPERTY_BYTES, CrcProperty, RecordCrc, RecordFields, RecordView, SysFlag, Version, body_crc, place, seal,
    write_crc_digits,
};

pub(crate) const TOPIC: &str = "load";
/// A key is a number in hex.
pub(crate) const KEY_BYTES: usize = 16;
/// The body's CRC stands behind length and magic number.
const BODY_CRC: Range<usize> = 8..12;
/// From this length on, combining two CRCs is cheaper than reading the body twice.
const COMBINE_BYTES: usize = 2048;

/// One encoded record, of which only what differs is made anew.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    record: Vec<u8>,
    body: Range<usize>,
    key: Option<Range<usize>>,
}

impl Template {
    /// The record that a put of `body` makes, with a key or without.
    pub(crate) fn new(body: &[u8], has_key: bool) -> Self {
        let host = "127.0.0.1:10911".parse().expect("an address");
        let mut properties = Vec::new();
        if has_key {
            properties::push(&mut properties, KEYS, &"0".repeat(KEY_BYTES));
        }
        let fields = RecordFields {
            version: Version::V1,
            queue_id: 0,
            flag: 0,
            queue_offset: 0,
            log_offset: 0,
            sys_flag: SysFlag(0),
            born_ms: now_ms(),
            born_host: host,
            store_ms: 0,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            topic: TOPIC.as_bytes(),
            properties: &properties,
        };
        let mut record = Vec::new();
        fields.encode(RecordCrc::On, &mut record);
        let body_end = record.len() - CRC_PROPERTY_BYTES - properties.len() - 2 - TOPIC.len() - 1;
        let key_end = record.len() - CRC_PROPERTY_BYTES - 1;
        let key = has_key.then_some(key_end - KEY_BYTES..key_end);
        let mut template = Self { record, body: body_end - body.len()..body_end, key };
        assert_eq!(
            check(template.make(0, 0)),
            Some(template.record_bytes() as usize),
            "the template is a right record"
        );
        template
    }

    /// Length of every record.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.record.len() as u64
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.record[self.body.clone()]
    }

    /// Where the key stands in every record that has one.
    pub(crate) fn key(&self) -> Option<Range<usize>> {
        self.key.clone()
    }

    /// Makes the record of a message: its key, its offsets, the time, both CRCs.
    pub(crate) fn make(&mut self, number: u64, log_offset: u64) -> &[u8] {
        self.make_at(number, log_offset, now_ms())
    }

    /// The same without reading the clock.
    pub(crate) fn make_at(&mut self, number: u64, log_offset: u64, store_ms: i64) -> &[u8] {
        if let Some(key) = &self.key {
            write_key(&mut self.record[key.clone()], number);
        }
        place(&mut self.record, number, log_offset, store_ms);
        if self.body.len() < COMBINE_BYTES {
            let crc = body_crc(&self.record[self.body.clone()]);
            self.record[BODY_CRC].copy_from_slice(&crc.to_be_bytes());
            seal(&mut self.record);
        } else {
            self.seal_in_one_pass();
        }
        &self.record
    }

    fn seal_in_one_pass(&mut self) {
        let mut body = crc32fast::Hasher::new();
        body.update(&self.record[self.body.clone()]);
        let crc = body.clone().finalize() & 0x7FFF_FFFF;
        self.record[BODY_CRC].copy_from_slice(&crc.to_be_bytes());
        let (covered, property) =
            self.record.split_last_chunk_mut::<CRC_PROPERTY_BYTES>().expect("a record is longer than its property");
        let mut all = crc32fast::Hasher::new();
        all.update(&covered[..self.body.start]);
        all.combine(&body);
        all.update(&covered[self.body.end..]);
        write_crc_digits(property, all.finalize());
    }
}

/// The body of every message.
pub(crate) fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

/// Writes the key of a message: its number in hex, as many digits as `key` has.
pub(crate) fn write_key(key: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in key.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
    }
}

/// Checks the record that `bytes` begin with, and returns its length: the structure, and the CRC of the whole record,
/// which covers the body too.
pub(crate) fn check(bytes: &[u8]) -> Option<usize> {
    let record = RecordView::decode(bytes).ok()?;
    let len = record.record_bytes() as usize;
    let computed = crc32fast::hash(&bytes[..len - CRC_PROPERTY_BYTES]) & 0x7FFF_FFFF;
    (record.crc_property() == CrcProperty::Present(computed)).then_some(len)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
