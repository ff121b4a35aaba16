//! L1 and L2: copying records into pages that nobody has touched.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use memmap2::{MmapOptions, MmapRaw};

use super::{BLANK_BYTES, Budget, Measured, Template, create};

/// How many records are copied between two looks at the time.
const RUN: u64 = 256;
/// The helper prepares so much at once.
#[cfg(target_os = "linux")]
const STEP_BYTES: usize = 1 << 20;

/// Who brings in the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// The copying thread, when it meets them.
    Fresh,
    /// A helper, ahead of the copying thread as far as it gets.
    Ahead,
}

/// Fills one file after the other; they are made off the clock, and stay until it has stopped.
#[derive(Debug)]
pub(crate) struct FreshPages {
    folder: PathBuf,
    file_bytes: u64,
    pages: Pages,
}

impl FreshPages {
    pub(crate) fn new(folder: &Path, file_bytes: u64, pages: Pages) -> Self {
        Self { folder: folder.to_owned(), file_bytes, pages }
    }

    pub(crate) fn run(&self, template: &mut Template, budget: Budget) -> io::Result<Measured> {
        let folder = tempfile::tempdir_in(&self.folder)?;
        let mut measured = Measured::default();
        let mut files = Vec::new();
        while measured.messages < budget.messages && measured.took < budget.time {
            let mapping = map(&folder.path().join(files.len().to_string()), self.file_bytes)?;
            let base = files.len() as u64 * self.file_bytes;
            let done = AtomicBool::new(false);
            match self.pages {
                Pages::Fresh => fill(&mapping, base, template, budget, &mut measured),
                Pages::Ahead => thread::scope(|scope| {
                    thread::Builder::new().spawn_scoped(scope, || prepare(&mapping, &done))?;
                    fill(&mapping, base, template, budget, &mut measured);
                    done.store(true, Ordering::Relaxed);
                    Ok::<(), io::Error>(())
                })?,
            }
            files.push(mapping);
        }
        Ok(measured)
    }
}

/// A mapping of a file that has its length and its blocks.
fn map(path: &Path, bytes: u64) -> io::Result<MmapRaw> {
    let file = create(path)?;
    file.set_len(bytes)?;
    #[cfg(target_os = "linux")]
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    MmapOptions::new().map_raw(&file)
}

/// Copies records until the file is full or the budget used up.
fn fill(mapping: &MmapRaw, base: u64, template: &mut Template, budget: Budget, measured: &mut Measured) {
    let len = template.record_bytes();
    let fit = (mapping.len() as u64).saturating_sub(BLANK_BYTES) / len;
    assert!(fit > 0, "a record fits a file");
    let last = fit.min(budget.messages - measured.messages);
    let (start, mut copied) = (Instant::now(), 0);
    while copied < last {
        let at = copied * len;
        let record = template.make(measured.messages + copied, base + at);
        // SAFETY: `copied` is less than `fit`, so the place is in the mapping.
        let place = unsafe { mapping.as_mut_ptr().add(at as usize) };
        // SAFETY: the record and its place are of one length, in different memory, and only this thread writes here.
        unsafe { std::ptr::copy_nonoverlapping(record.as_ptr(), place, record.len()) };
        copied += 1;
        if copied % RUN == 0 && start.elapsed() + measured.took >= budget.time {
            break;
        }
    }
    measured.took += start.elapsed();
    measured.messages += copied;
}

/// Brings in page after page for writing until the file ends.
#[cfg(target_os = "linux")]
fn prepare(mapping: &MmapRaw, done: &AtomicBool) {
    for at in (0..mapping.len()).step_by(STEP_BYTES) {
        let step = STEP_BYTES.min(mapping.len() - at);
        // A kernel that cannot do this leaves the pages to the copying thread.
        if done.load(Ordering::Relaxed) || mapping.advise_range(memmap2::Advice::PopulateWrite, at, step).is_err() {
            return;
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn prepare(_: &MmapRaw, _: &AtomicBool) {}
