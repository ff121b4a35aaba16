//! Takes numbers and text from the front of some bytes; `None` when they end too early or hold no such value.

use crate::offset::{LogOffset, QueueOffset};

/// What is left to decode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn bool(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    pub(super) fn log_offset(&mut self) -> Option<LogOffset> {
        self.u64().map(LogOffset::new).filter(|offset| *offset <= LogOffset::MAX)
    }

    pub(super) fn queue_offset(&mut self) -> Option<QueueOffset> {
        self.u64().map(QueueOffset::new).filter(|offset| *offset <= QueueOffset::MAX)
    }

    /// A count, and so many items.
    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        // The count is not trusted with memory: the list grows only as far as there are bytes for it.
        (0..self.u32()?).map(|_| item(self)).collect()
    }
}
