//! What an opening goes by: how it is asked to open, and what the session before left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use byteorder::{BigEndian, ByteOrder};

use super::read::ReadMode;
use crate::clock::Clock;
use crate::disk::{File, OpenMode, Storage};
use crate::error::Result;
use crate::format::names::log_file_name;
use crate::format::record::{RecordCrc, RecordView, Version};
use crate::mapped_file::list_log_files;
use crate::side::{Derived, LOG_FILE_BYTES, SideFolder, StoreFormat, Watermark, WatermarkFile};

/// RocketMQ's limit for a body.
pub(crate) const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// At RocketMQ's limits no record is longer: its body, and header, topic and properties.
pub(super) const MOST_RECORD_BYTES: u32 = MAX_BODY_BYTES as u32 + 64 * 1024;

/// How to open.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    pub(crate) storage: Storage,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) root: PathBuf,
    /// Sizes for a new store, and whether records get the CRC; what exists has its own sizes.
    pub(crate) wanted: StoreFormat,
    /// Finds the sizes of the other files where `mqlog/format` does not say.
    pub(crate) detect: fn(&Storage, &Path, &mut StoreFormat) -> Result<()>,
    pub(crate) crc: RecordCrc,
    pub(crate) grouped: bool,
    pub(crate) read_mode: ReadMode,
    pub(crate) read_only: bool,
    /// Open although bytes are damaged, and keep them.
    pub(crate) salvage: bool,
}

/// What was known of the store before it was opened.
#[derive(Debug)]
pub(crate) struct Known {
    /// The log's files exist and somebody else wrote to the store since mqlog did.
    pub(crate) foreign: bool,
    pub(crate) format: Option<StoreFormat>,
    pub(crate) watermark: Option<Watermark>,
    pub(crate) derived: Option<Derived>,
}

/// Sees every whole record that the derived files do not cover, with what these hold.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(Option<&Derived>, &RecordView<'_>);

impl Known {
    pub(super) fn load(side: &SideFolder, ours: bool) -> Result<Self> {
        if !ours {
            return Ok(Self { foreign: true, format: None, watermark: None, derived: None });
        }
        let (format, watermark) = (StoreFormat::load(side)?, WatermarkFile::peek(side)?);
        Ok(Self { foreign: false, format, watermark, derived: Derived::load(side)? })
    }

    /// Did the last session close the store completely?
    pub(crate) fn is_clean(&self) -> bool {
        self.format.as_ref().is_some_and(|format| format.clean) && self.derived.is_some()
    }
}

/// The length that log files have in a folder: what most lengths, and most distances of names, say. Neither alone will
/// do: a file may be short, or missing. `None` if nothing says it.
pub(super) fn file_bytes_on_disk(options: &LogOptions) -> Result<Option<u64>> {
    let dir = options.root.join("commitlog");
    let (files, _) = list_log_files(&options.storage, &dir)?;
    if let [(base, bytes)] = files[..] {
        let may_be_short = bytes < options.wanted.log_file_bytes && base.is_multiple_of(options.wanted.log_file_bytes);
        if !base.is_multiple_of(bytes.max(1)) {
            return Ok(None);
        }
        if may_be_short && is_cut(&options.storage.open(&dir.join(log_file_name(base)), OpenMode::Read)?)? {
            return Ok(None);
        }
    }
    let distances = files.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let lengths = distances.chain(files.iter().map(|(_, bytes)| *bytes));
    Ok(most_frequent(lengths.filter(|bytes| LOG_FILE_BYTES.contains(bytes))))
}

/// What most of the files say, the largest of equally frequent lengths.
pub(crate) fn most_frequent(lengths: impl IntoIterator<Item = u64>) -> Option<u64> {
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    lengths.into_iter().for_each(|bytes| *votes.entry(bytes).or_default() += 1);
    votes.into_iter().max_by_key(|(_, count)| *count).map(|(bytes, _)| bytes)
}

/// Does a file end within a record? One of full length ends with a blank or with zeros.
fn is_cut(file: &File) -> Result<bool> {
    let (mut at, mut head) = (0, [0; 8]);
    while file.read_at(&mut head, at)? == head.len() {
        let length = BigEndian::read_u32(&head);
        let is_record = Version::from_magic(BigEndian::read_u32(&head[4..])).is_some();
        if !is_record || !(1..MOST_RECORD_BYTES).contains(&length) {
            return Ok(false);
        }
        at += u64::from(length);
    }
    Ok(true)
}
