//! The log as the store's flush service sees it.

use super::{Tasks, wake_dispatch};
use crate::commit_log::CommitLog;
use crate::error::Result;
use crate::flush::FlushTarget;
use crate::offset::LogOffset;

/// A log whose dispatch waits for what becomes durable, where it is written in groups.
#[derive(Debug)]
pub(super) struct DurableLog {
    pub(super) log: CommitLog,
    pub(super) tasks: Tasks,
}

impl FlushTarget for DurableLog {
    fn tail(&self) -> LogOffset {
        self.log.tail()
    }

    fn flush(&self) -> Result<LogOffset> {
        let end = self.log.flush_settled()?;
        if self.log.is_grouped() {
            wake_dispatch(&self.tasks);
        }
        Ok(end)
    }

    fn durable(&self) -> LogOffset {
        self.log.durable_offset()
    }
}
