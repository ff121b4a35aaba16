//! Which files may go: facts in, an offset out.

use crate::offset::LogOffset;

/// A log file: where it begins, and the store time of its first whole record, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileFacts {
    pub(crate) base: LogOffset,
    pub(crate) first_ms: Option<i64>,
}

/// The offset below which every record was stored before `cutoff_ms`: the base of a file. A file is only known to be
/// old when a later one begins before the cutoff too.
pub(crate) fn older_than(files: &[FileFacts], cutoff_ms: i64) -> LogOffset {
    let known = files.iter().filter_map(|file| file.first_ms.map(|first_ms| (file.base, first_ms)));
    let last_old = known.take_while(|(_, first_ms)| *first_ms <= cutoff_ms).last();
    last_old.map_or(LogOffset::ZERO, |(base, _)| base)
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

    #[test]
    fn a_file_without_a_whole_record_is_as_old_as_the_ones_before_the_next() {
        let files = files(&[None, Some(20), None, Some(30)]);
        assert_eq!(older_than(&files, 19), LogOffset::ZERO);
        assert_eq!(older_than(&files, 29), LogOffset::new(100));
        assert_eq!(older_than(&files, 30), LogOffset::new(300));
    }
}
