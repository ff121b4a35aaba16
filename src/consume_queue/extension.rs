//! RocketMQ's extension files, which are only read: a unit holds the tags code of the message whose entry has its
//! address.

use std::path::Path;

use crate::disk::{File, OpenMode, Storage};
use crate::error::Result;
use crate::format::names::parse_log_file_name;
use crate::format::queue_entry::{ExtensionAddress, ExtensionUnit};

/// The folder of the extension files in a store.
pub(super) const FOLDER: &str = "consumequeue_ext";

/// The extension files of one queue, as they are now.
#[derive(Debug)]
pub(super) struct Extension {
    files: Vec<(u64, File)>,
}

impl Extension {
    pub(super) fn open(storage: &Storage, dir: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for listed in storage.list(dir)? {
            if let Some(base) = parse_log_file_name(&listed.name).filter(|_| !listed.info.is_dir) {
                files.push((base, storage.open(&dir.join(&listed.name), OpenMode::Read)?));
            }
        }
        files.sort_unstable_by_key(|(base, _)| *base);
        Ok(Self { files })
    }

    /// Returns the tags code of the unit at an address, or `None` if there is no whole unit.
    pub(super) fn tags_code(&self, address: ExtensionAddress) -> Result<Option<i64>> {
        let behind = self.files.partition_point(|(base, _)| *base <= address.offset());
        let Some((base, file)) = behind.checked_sub(1).map(|index| &self.files[index]) else { return Ok(None) };
        let position = address.offset() - base;
        let mut bytes = vec![0; ExtensionUnit::MIN_BYTES];
        let present = file.read_at(&mut bytes, position)?;
        let length = i16::from_be_bytes([bytes[0], bytes[1]]);
        if present < bytes.len() || usize::try_from(length).is_err() {
            return Ok(None);
        }
        bytes.resize((length.unsigned_abs() as usize).max(bytes.len()), 0);
        let present = file.read_at(&mut bytes, position)?;
        Ok(ExtensionUnit::decode(&bytes[..present]).ok().flatten().map(|unit| unit.tags_code))
    }
}
