//! Any bytes as an entry of a queue, of a batch queue, of its extension or of an index, as a header, a checkpoint, a name
//! or a message id.

use mqlog::format::checkpoint::Checkpoint;
use mqlog::format::index::{IndexEntry, IndexHeader};
use mqlog::format::message_id::{OffsetMessageId, UniqueId};
use mqlog::format::names::{index_file_name, log_file_name, parse_index_name, parse_log_file_name};
use mqlog::format::queue_entry::{BatchEntry, ExtensionAddress, ExtensionUnit, QueueEntry};

/// What decodes encodes to its own bytes, but for the few that are not read.
pub fn queue_entries(bytes: &[u8]) -> bool {
    let queue = queue_entry(bytes);
    let batch = batch_entry(bytes);
    let unit = extension_unit(bytes);
    if let Ok(entry) = IndexEntry::decode(bytes) {
        assert_eq!(entry.encode()[..], bytes[..IndexEntry::BYTES]);
    }
    if let Ok(header) = IndexHeader::decode(bytes) {
        assert!(header.next_entry >= 1);
        assert_eq!(IndexHeader::decode(&header.encode()), Ok(header));
        // RocketMQ counts from 1, so 0 is read as 1.
        assert_eq!(header.encode()[..36], bytes[..36]);
    }
    if let Ok(checkpoint) = Checkpoint::decode(bytes) {
        assert_eq!(checkpoint.encode()[..], bytes[..Checkpoint::BYTES]);
    }
    if let Ok(text) = str::from_utf8(bytes) {
        names(text);
    }
    queue || batch || unit
}

fn queue_entry(bytes: &[u8]) -> bool {
    let Ok(Some(entry)) = QueueEntry::decode(bytes) else { return false };
    assert_eq!(entry.encode()[..], bytes[..QueueEntry::BYTES]);
    // What RocketMQ fills the beginning of a queue's first file with, and mqlog the place of a lost message.
    if entry.is_filler() {
        let is_rocketmqs = entry.encode() == QueueEntry::FILLER;
        assert!(is_rocketmqs || entry == QueueEntry::filler_at(entry.log_offset, entry.record_bytes));
    }
    match ExtensionAddress::from_tags_code(entry.tags_code) {
        Some(address) => {
            assert!(entry.tags_code < i64::from(i32::MIN));
            assert_eq!(address.to_tags_code(), entry.tags_code);
            assert_eq!(ExtensionAddress::new(address.offset()), Some(address));
        }
        None => assert!(entry.tags_code >= i64::from(i32::MIN)),
    }
    true
}

fn batch_entry(bytes: &[u8]) -> bool {
    let Ok(Some(entry)) = BatchEntry::decode(bytes) else { return false };
    assert!(entry.count > 0 && entry.record_bytes > 0);
    // The last 8 bytes are always the same and not read.
    assert_eq!(entry.encode()[..38], bytes[..38]);
    assert_eq!(BatchEntry::decode(&entry.encode()), Ok(Some(entry)));
    true
}

fn extension_unit(bytes: &[u8]) -> bool {
    let Ok(Some(unit)) = ExtensionUnit::decode(bytes) else { return false };
    let mut out = Vec::new();
    unit.encode(&mut out);
    assert_eq!((out.len(), &out[..]), (unit.unit_bytes(), &bytes[..out.len()]));
    for have in 0..out.len() {
        assert!(!matches!(ExtensionUnit::decode(&bytes[..have]), Ok(Some(_))));
    }
    true
}

fn names(text: &str) {
    if let Some(base) = parse_log_file_name(text) {
        assert_eq!(log_file_name(base), text);
    }
    if let Some(time) = parse_index_name(text) {
        assert_eq!(index_file_name(time), text);
    }
    if let Ok(id) = text.parse::<OffsetMessageId>() {
        assert_eq!(id.to_string(), text.to_uppercase());
    }
    if let Ok(id) = text.parse::<UniqueId>() {
        assert_eq!(id.to_string(), text.to_uppercase());
    }
}
