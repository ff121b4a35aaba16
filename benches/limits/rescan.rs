//! What an opening after a kill cannot do without: look at what may not be durable, and make it so.

use std::fs::File;
use std::io::{self, Error, ErrorKind};
use std::path::Path;
use std::time::Instant;

use super::{Budget, Measured, Template, check, create, write_at};

/// A file with records; what it costs to read, check, write back and sync them all.
#[derive(Debug)]
pub(crate) struct Rescan {
    file: File,
    bytes: Vec<u8>,
    messages: u64,
}

impl Rescan {
    /// Writes records of `bytes` altogether.
    pub(crate) fn new(folder: &Path, template: &mut Template, bytes: u64) -> io::Result<Self> {
        let (file, messages) = (create(&folder.join("rescan"))?, bytes / template.record_bytes());
        let mut all = Vec::new();
        for number in 0..messages {
            all.extend_from_slice(template.make(number, number * template.record_bytes()));
        }
        write_at(&file, &all, 0)?;
        file.sync_all()?;
        Ok(Self { file, bytes: all, messages })
    }

    pub(crate) fn run(&mut self, budget: Budget) -> io::Result<Measured> {
        let start = Instant::now();
        for _ in 0..budget.messages {
            read_at(&self.file, &mut self.bytes)?;
            let mut left = &self.bytes[..];
            while !left.is_empty() {
                let len = check(left).ok_or_else(|| Error::new(ErrorKind::InvalidData, "a record is not right"))?;
                left = &left[len..];
            }
            write_at(&self.file, &self.bytes, 0)?;
            self.file.sync_data()?;
        }
        Ok(Measured { messages: budget.messages * self.messages, took: start.elapsed() })
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, 0)
}

#[cfg(windows)]
fn read_at(mut file: &File, bytes: &mut [u8]) -> io::Result<()> {
    use std::io::{Read, Seek};
    file.rewind()?;
    file.read_exact(bytes)
}
