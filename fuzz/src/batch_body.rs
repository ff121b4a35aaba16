//! Any bytes as the body of a client's batch.

use mqlog::format::DecodeError;
use mqlog::format::batch::{BatchError, batch_count, batch_items, push_batch_item};

/// What can be read can be written again, to the same bytes but for two words of each message that nobody reads.
pub fn batch_body(bytes: &[u8]) -> bool {
    let items: Result<Vec<_>, _> = batch_items(bytes).collect();
    let items = match items {
        Ok(items) => items,
        Err(error) => {
            assert_eq!(batch_count(bytes, usize::MAX), Err(error));
            let before = batch_items(bytes).take_while(Result::is_ok).count();
            assert_eq!(batch_items(bytes).count(), before + 1, "nothing follows an error");
            return before > 0;
        }
    };
    assert_eq!(batch_count(bytes, items.len()), Ok(items.len()));
    if let Some(limit) = items.len().checked_sub(1) {
        let error = batch_count(bytes, limit).expect_err("there are more");
        assert!(matches!(error, BatchError { source: DecodeError::Length { .. }, .. }), "{error}");
    }
    let mut again = Vec::new();
    let mut expected = bytes.to_vec();
    for item in &items {
        expected[again.len() + 4..again.len() + 12].fill(0);
        push_batch_item(&mut again, item);
    }
    assert_eq!(again, expected);
    assert_eq!(batch_items(&again).collect::<Result<Vec<_>, _>>(), Ok(items));
    !bytes.is_empty()
}
