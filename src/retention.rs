//! Which files may go: facts in, an offset out.

use crate::offset::LogOffset;

/// A log file: where it begins, and the store time of its first record, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileFacts {
    pub(crate) base: LogOffset,
    pub(crate) first_ms: Option<i64>,
}

/// The offset below which every record was stored before `cutoff_ms`: the base of a file. A file is only known to be
/// old when the next one begins before the cutoff too.
pub(crate) fn older_than(files: &[FileFacts], cutoff_ms: i64) -> LogOffset {
    let is_old = |file: &&FileFacts| file.first_ms.is_some_and(|first_ms| first_ms <= cutoff_ms);
    let last_old = files.iter().take_while(is_old).last();
    last_old.map_or(LogOffset::ZERO, |file| file.base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(first: &[Option<i64>]) -> Vec<FileFacts> {
        let facts = |(index, first_ms): (usize, &Option<i64>)| FileFacts {
            base: LogOffset::new(index as u64 * 100),
            first_ms: *first_ms,
        };
        first.iter().enumerate().map(facts).collect()
    }

    #[test]
    fn a_file_is_old_when_the_next_one_is() {
        let files = files(&[Some(10), Some(20), Some(30), None]);
        assert_eq!(older_than(&files, 9), LogOffset::ZERO);
        assert_eq!(older_than(&files, 19), LogOffset::ZERO);
        assert_eq!(older_than(&files, 20), LogOffset::new(100));
        assert_eq!(older_than(&files, 1_000), LogOffset::new(200));
    }
}
