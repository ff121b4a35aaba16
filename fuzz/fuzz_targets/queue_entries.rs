//! Any bytes as an entry of a queue, a batch queue or an index, a header, a checkpoint: what decodes encodes to itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mqlog::format::checkpoint::Checkpoint;
use mqlog::format::index::{IndexEntry, IndexHeader};
use mqlog::format::queue_entry::{BatchEntry, ExtensionUnit, QueueEntry};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(entry)) = QueueEntry::decode(bytes) {
        assert_eq!(entry.encode()[..], bytes[..QueueEntry::BYTES]);
    }
    if let Ok(Some(entry)) = BatchEntry::decode(bytes) {
        assert_eq!(BatchEntry::decode(&entry.encode()), Ok(Some(entry)));
    }
    if let Ok(entry) = IndexEntry::decode(bytes) {
        assert_eq!(entry.encode()[..], bytes[..IndexEntry::BYTES]);
    }
    if let Ok(header) = IndexHeader::decode(bytes) {
        assert_eq!(IndexHeader::decode(&header.encode()), Ok(header));
    }
    if let Ok(checkpoint) = Checkpoint::decode(bytes) {
        assert_eq!(checkpoint.encode()[..], bytes[..Checkpoint::BYTES]);
    }
    let _ = ExtensionUnit::decode(bytes);
});
