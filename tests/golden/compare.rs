//! Comparisons that name the first difference: whole stores printed side by side help nobody.

use serde_json::Value;

use crate::expected::{Keys, Queue, Queues};

pub(crate) fn check_records(name: &str, ours: &[Value], theirs: &[Value]) {
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours, theirs, "{name}: a record differs");
    }
    let next = ours.get(theirs.len()).or(theirs.get(ours.len()));
    assert_eq!(ours.len(), theirs.len(), "{name}: the number of records differs, first at {next:?}");
}

/// Compares queues with RocketMQ's.
///
/// Where RocketMQ's own recovery leaves something else than every record's right entry (gaps in 5.3, wrong deliver times
/// in 4.9), ours must equal the `full` queues: recovery derives every queue from the log.
pub(crate) fn check_queues(name: &str, ours: &Queues, theirs: &Queues, full: Option<Queues>) {
    let expected = full.as_ref().unwrap_or(theirs);
    for (key, expected) in expected {
        // RocketMQ makes a queue when somebody asks for it; mqlog makes it with its first message.
        let none = Queue::default();
        let queue = if *expected == none { ours.get(key).unwrap_or(&none) } else { &ours[key] };
        let difference = queue.entries.iter().zip(&expected.entries).find(|(ours, theirs)| ours != theirs);
        assert_eq!(difference, None, "{name}: entries of {key:?} differ");
        assert_eq!(queue.entries.len(), expected.entries.len(), "{name}: the number of entries of {key:?} differs");
        assert_eq!(queue.range, expected.range, "{name}: the range of {key:?} differs");
    }
    for (key, queue) in ours.iter().filter(|(key, _)| !expected.contains_key(*key)) {
        // A queue whose records were all deleted: RocketMQ 4.9 keeps its old entries and its old start, mqlog (and 5.3)
        // moves the start to the end. The next message's offset is the same.
        let end = theirs.get(key).map_or(0, |queue| queue.range.end);
        assert_eq!(queue.entries.len(), 0, "{name}: {key:?} should be empty");
        assert_eq!(queue.range, end..end, "{name}: the range of {key:?}, which is empty, differs");
    }
}

pub(crate) fn check_keys(name: &str, ours: &Keys, theirs: &Keys) {
    for (key, offsets) in theirs {
        assert_eq!(ours.get(key), Some(offsets), "{name}: the records with {key:?} differ");
    }
}
