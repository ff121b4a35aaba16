//! L3: one write and one sync a record.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Instant;

use super::{BLANK_BYTES, Budget, Measured, Template, WRITTEN_BYTES, create_written, write_at};

/// A file that was written with zeros and synced, so that its blocks need no more bookkeeping; begun anew at its end.
#[derive(Debug)]
pub(crate) struct Prewritten {
    file: File,
    bytes: u64,
    tail: u64,
    written: u64,
}

impl Prewritten {
    pub(crate) fn new(folder: &Path, file_bytes: u64) -> io::Result<Self> {
        let bytes = file_bytes.min(WRITTEN_BYTES);
        Ok(Self { file: create_written(&folder.join("prewritten"), bytes)?, bytes, tail: 0, written: 0 })
    }

    pub(crate) fn run(&mut self, template: &mut Template, budget: Budget) -> io::Result<Measured> {
        let (start, mut measured) = (Instant::now(), Measured::default());
        while measured.messages < budget.messages && measured.took < budget.time {
            if self.tail + template.record_bytes() + BLANK_BYTES > self.bytes {
                self.tail = 0;
            }
            let record = template.make(self.written, self.tail);
            write_at(&self.file, record, self.tail)?;
            self.file.sync_data()?;
            (self.tail, self.written) = (self.tail + record.len() as u64, self.written + 1);
            measured.messages += 1;
            measured.took = start.elapsed();
        }
        Ok(measured)
    }
}
