//! The limit row of a run.

use std::io;
use std::path::Path;

use tempfile::TempDir;

use crate::Failure;
use crate::args::{Args, Flush};
use crate::limits::{
    BLANK_BYTES, Budget, FreshPages, GroupCommit, Measured, Order, Pages, Prewritten, Reads, Template, body,
    wait_until_quiet,
};
use crate::progress::Progress;

/// A run of so many seconds cannot know how much it will write: before it, L1 writes no more than this.
const FRESH_BYTES: u64 = 2 << 30;

/// Which row it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    FreshPages,
    Prewritten,
    GroupCommit { producers: u64 },
    Reads(Order),
}

impl Row {
    fn of(args: &Args) -> Self {
        match (args.read, args.flush, args.producers) {
            (Some(order), ..) => Self::Reads(order),
            (None, Flush::Async, _) => Self::FreshPages,
            (None, Flush::Sync, 1) => Self::Prewritten,
            (None, Flush::Sync, producers) => Self::GroupCommit { producers },
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FreshPages => "L1, a copy into fresh pages",
            Self::Prewritten => "L3, one write and one sync",
            Self::GroupCommit { .. } => "L4, group commit",
            Self::Reads(Order::Sequence) => "L5, reads in sequence",
            Self::Reads(Order::Random) => "L5, reads at random",
        }
    }
}

/// Messages a second, before the run and after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) row: Row,
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// Was the disk at rest before both?
    pub(crate) quiet: bool,
}

impl Rates {
    pub(crate) fn mean(&self) -> f64 {
        f64::midpoint(self.before, self.after)
    }
}

/// A row with what it needs; its files are removed in the end.
#[derive(Debug)]
pub(crate) struct Limit {
    folder: TempDir,
    template: Template,
    file_bytes: u64,
    /// How many messages the store has, when they are read.
    stored: u64,
    rates: Rates,
}

impl Limit {
    /// `sizes` are those of a log file and of a body.
    pub(crate) fn new(folder: TempDir, args: &Args, sizes: (u64, usize), stored: u64) -> Result<Self, Failure> {
        let (file_bytes, body_bytes) = sizes;
        let rates = Rates { row: Row::of(args), before: 0.0, after: 0.0, quiet: true };
        let template = Template::new(&body(body_bytes), args.keys);
        let record_bytes = template.record_bytes();
        if record_bytes + BLANK_BYTES > file_bytes {
            return Err(format!("a record of {record_bytes} bytes does not fit a log file of {file_bytes}").into());
        }
        Ok(Self { folder, template, file_bytes, stored, rates })
    }

    /// Measures as many messages as the run will do, or as long as it will take.
    pub(crate) fn measure_before(&mut self, budget: Budget, progress: &Progress) -> io::Result<()> {
        let timed = self.rates.row == Row::FreshPages && budget.messages == u64::MAX;
        let most = FRESH_BYTES / self.template.record_bytes();
        let messages = if timed { most.max(1) } else { budget.messages };
        self.rates.before = self.measure(Budget { messages, ..budget }, progress)?.rate();
        Ok(())
    }

    /// Measures as many messages as the run did.
    pub(crate) fn measure_after(&mut self, messages: u64, progress: &Progress) -> io::Result<()> {
        self.rates.after = self.measure(Budget::of_messages(messages.max(1)), progress)?.rate();
        Ok(())
    }

    pub(crate) fn into_rates(self) -> Rates {
        self.rates
    }

    fn measure(&mut self, budget: Budget, progress: &Progress) -> io::Result<Measured> {
        let (row, file_bytes) = (self.rates.row, self.file_bytes);
        progress.say(&format!("limit {}", row.name()));
        let scratch = tempfile::tempdir_in(self.folder.path())?;
        let (folder, template): (&Path, _) = (scratch.path(), &mut self.template);
        let mut at_rest = || self.rates.quiet &= wait_until_quiet();
        match row {
            Row::FreshPages => {
                at_rest();
                FreshPages::new(folder, file_bytes, Pages::Fresh).run(template, budget)
            }
            Row::Prewritten => {
                let mut limit = Prewritten::new(folder, file_bytes)?;
                at_rest();
                limit.run(template, budget)
            }
            Row::GroupCommit { producers } => {
                let limit = GroupCommit::new(folder, file_bytes, producers)?;
                at_rest();
                limit.run(template, budget)
            }
            Row::Reads(order) => {
                let limit = Reads::new(folder, template, self.stored)?;
                at_rest();
                limit.run(order, budget)
            }
        }
    }
}
