//! Any bytes as the body of a client's batch: what can be read can be written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mqlog::format::batch::{batch_count, batch_items, push_batch_item};

fuzz_target!(|bytes: &[u8]| {
    let items: Result<Vec<_>, _> = batch_items(bytes).collect();
    if let Ok(items) = items {
        assert_eq!(batch_count(bytes, items.len()), Ok(items.len()));
        let mut again = Vec::new();
        items.iter().for_each(|item| push_batch_item(&mut again, item));
        assert_eq!(batch_items(&again).collect::<Result<Vec<_>, _>>(), Ok(items));
    }
});
