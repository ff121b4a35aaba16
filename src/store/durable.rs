//! The log as the store's flush service sees it.

use std::sync::{Arc, OnceLock};

use crate::commit_log::CommitLog;
use crate::drive::Waker;
use crate::error::Result;
use crate::flush::FlushTarget;
use crate::offset::LogOffset;

/// A log whose dispatch waits for what becomes durable.
#[derive(Debug)]
pub(super) struct DurableLog {
    pub(super) log: CommitLog,
    pub(super) dispatch: OnceLock<Arc<Waker>>,
}

impl FlushTarget for DurableLog {
    fn tail(&self) -> LogOffset {
        self.log.tail()
    }

    fn flush(&self) -> Result<LogOffset> {
        let end = self.log.flush()?;
        if let Some(dispatch) = self.dispatch.get() {
            dispatch.wake();
        }
        Ok(end)
    }

    fn durable(&self) -> LogOffset {
        self.log.durable_offset()
    }
}
