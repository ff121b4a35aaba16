//! Any bytes as a record, with every getter of those that are one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mqlog::format::record::{Item, RecordView};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Item::Record(record)) = Item::decode(bytes) {
        assert!(record.bytes().len() <= bytes.len());
        let again = RecordView::decode(record.bytes()).expect("a record is its own bytes");
        assert_eq!(again.verify(), record.verify());
        let _ = (record.topic(), record.tags(), record.unique_key(), record.message_id(), record.keys().count());
        for (name, value) in record.properties().iter() {
            assert!(!name.is_empty() && !value.is_empty());
        }
    }
});
