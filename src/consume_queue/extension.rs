//! RocketMQ's extension files, which are only read: a unit holds the tags code of the message whose entry has its
//! address.

use super::entry_files::EntryFiles;
use crate::disk::{File, Listed, OpenMode};
use crate::error::Result;
use crate::format::names::parse_log_file_name;
use crate::format::queue_entry::{ExtensionAddress, ExtensionUnit, QueueEntry};

/// The folder of the extension files in a store.
const FOLDER: &str = "consumequeue_ext";

/// The extension files of one queue, as they are when the first of them is needed.
#[derive(Debug)]
pub(super) struct Extension<'a> {
    queue: &'a EntryFiles,
    files: Option<Vec<(u64, File)>>,
}

impl<'a> Extension<'a> {
    pub(super) const fn new(queue: &'a EntryFiles) -> Self {
        Self { queue, files: None }
    }

    /// Returns an entry's tags code, `None` if it is in a unit that is missing or damaged.
    pub(super) fn tags_code(&mut self, entry: &QueueEntry) -> Result<Option<i64>> {
        let address = ExtensionAddress::from_tags_code(entry.tags_code).filter(|_| !self.queue.is_batch);
        let Some(address) = address.map(ExtensionAddress::offset) else { return Ok(Some(entry.tags_code)) };
        if self.files.is_none() {
            self.files = Some(self.open()?);
        }
        let at_or_before = self.files.iter().flatten().rev().find(|(base, _)| *base <= address);
        let Some((base, file)) = at_or_before else { return Ok(None) };
        let mut bytes = vec![0; i16::MAX as usize];
        let present = file.read_at(&mut bytes, address - base)?;
        Ok(ExtensionUnit::decode(&bytes[..present]).ok().flatten().map(|unit| unit.tags_code))
    }

    /// Does a stored entry say what a given one says, be it by the address of a unit?
    pub(super) fn says_the_same(&mut self, stored: &[u8], given: &[u8]) -> Result<bool> {
        if stored == given || self.queue.is_batch {
            return Ok(stored == given);
        }
        let (Ok(Some(stored)), Ok(Some(given))) = (QueueEntry::decode(stored), QueueEntry::decode(given)) else {
            return Ok(false);
        };
        let same_place = stored.log_offset == given.log_offset && stored.record_bytes == given.record_bytes;
        Ok(same_place && self.tags_code(&stored)? == Some(given.tags_code))
    }

    fn open(&self) -> Result<Vec<(u64, File)>> {
        let (dir, storage) = (self.queue.dir_in(FOLDER), &self.queue.shared.storage);
        let files = storage.list(&dir)?.into_iter().filter_map(|Listed { name, info }| {
            let base = parse_log_file_name(&name).filter(|_| !info.is_dir)?;
            Some(storage.open(&dir.join(&name), OpenMode::Read).map(|file| (base, file)))
        });
        files.collect()
    }
}
