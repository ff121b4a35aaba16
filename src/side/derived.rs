//! `mqlog/derived`: how far the queues and the index are durable, one frame a checkpoint.
//!
//! Always: the first frame of the file names all queues; what a frame says was synced before the frame was written.

use std::collections::BTreeMap;

use super::fields::Fields;
use super::{DERIVED, SideFolder};
use crate::disk::{File, OpenMode};
use crate::error::{Corruption, Result};
use crate::offset::{LogOffset, QueueOffset};

const MAGIC: &[u8; 8] = b"mqlogDR1";
const FRAME_MAGIC: &[u8; 4] = b"mqfr";
/// Magic, payload length, sequence number.
const FRAME_HEADER_BYTES: usize = FRAME_MAGIC.len() + 8 + 8;
const CRC_BYTES: usize = 4;
/// A file that grew by less than this is not worth compacting.
const SMALL_BYTES: u64 = 64 * 1024;

/// A file as it was when a frame was written: the same length and time mean that nobody changed it since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileState {
    pub(crate) base: u64,
    pub(crate) bytes: u64,
    pub(crate) modified_ns: u64,
}

/// How far a queue is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueState {
    pub(crate) topic: String,
    pub(crate) queue_id: i32,
    pub(crate) batch: bool,
    pub(crate) min: QueueOffset,
    pub(crate) next: QueueOffset,
    pub(crate) entries: u64,
    pub(crate) files: Vec<FileState>,
}

/// How far an index file is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexState {
    /// The file's name, a number of 17 digits.
    pub(crate) name: u64,
    pub(crate) next_entry: u32,
    pub(crate) bytes: u64,
    pub(crate) modified_ns: u64,
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Everything below it is in queues and index.
    pub(crate) log_offset: LogOffset,
    /// Store time of the last record below.
    pub(crate) store_ms: i64,
    /// The queues that changed since the frame before.
    pub(crate) queues: Vec<QueueState>,
    /// All index files.
    pub(crate) index: Vec<IndexState>,
}

/// All frames of the file, merged: the newest word on each queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Derived {
    pub(crate) log_offset: LogOffset,
    pub(crate) store_ms: i64,
    pub(crate) queues: BTreeMap<(String, i32), QueueState>,
    pub(crate) index: Vec<IndexState>,
}

impl Derived {
    /// Reads the file; `None` if there is none that can be believed.
    pub(crate) fn load(side: &SideFolder) -> Result<Option<Self>> {
        Ok(read(side)?.map(|contents| contents.derived))
    }

    fn merge(&mut self, frame: Frame) {
        self.log_offset = frame.log_offset;
        self.store_ms = frame.store_ms;
        self.index = frame.index;
        for queue in frame.queues {
            self.queues.insert((queue.topic.clone(), queue.queue_id), queue);
        }
    }

    fn into_frame(self) -> Frame {
        let queues = self.queues.into_values().collect();
        Frame { log_offset: self.log_offset, store_ms: self.store_ms, queues, index: self.index }
    }
}

impl From<Frame> for Derived {
    fn from(frame: Frame) -> Self {
        let (log_offset, store_ms) = (frame.log_offset, frame.store_ms);
        let mut derived = Self { log_offset, store_ms, queues: BTreeMap::new(), index: Vec::new() };
        derived.merge(frame);
        derived
    }
}

/// The file, open for more frames.
#[derive(Debug)]
pub(crate) struct DerivedFile {
    side: SideFolder,
    file: File,
    next_sequence: u64,
    /// Where the first frame ends: the length after the last compaction.
    first_end: u64,
    /// Where the next frame goes.
    end: u64,
    /// What stands at `end` is in doubt, so the next frame goes into a new file.
    is_torn: bool,
}

impl DerivedFile {
    /// Makes the file, or replaces it as a whole, durably; `all` names every queue.
    pub(crate) fn create(side: &SideFolder, all: &Frame) -> Result<Self> {
        Self::create_with(side, 0, all)
    }

    fn create_with(side: &SideFolder, sequence: u64, all: &Frame) -> Result<Self> {
        let mut bytes = MAGIC.to_vec();
        encode_frame(sequence, all, &mut bytes);
        side.replace(DERIVED, &bytes)?;
        let file = side.storage.open(&side.path.join(DERIVED), OpenMode::ReadWrite)?;
        let end = bytes.len() as u64;
        Ok(Self { side: side.clone(), file, next_sequence: sequence + 1, first_end: end, end, is_torn: false })
    }

    /// Opens the file for more frames, and says what is in it; `None` if there is none that can be believed.
    pub(crate) fn open(side: &SideFolder) -> Result<Option<(Self, Derived)>> {
        let Some(contents) = read(side)? else { return Ok(None) };
        let opened = Self {
            side: side.clone(),
            file: side.storage.open(&side.path.join(DERIVED), OpenMode::ReadWrite)?,
            next_sequence: contents.next_sequence,
            first_end: contents.first_end,
            end: contents.end,
            is_torn: contents.is_torn,
        };
        Ok(Some((opened, contents.derived)))
    }

    /// Adds a frame, durably; what it says must be durable already. Compacts the file when it has doubled.
    ///
    /// After an error the frames before still count, and the same or a later frame may be given again.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if the file was damaged while it was open: make a new one.
    pub(crate) fn append(&mut self, frame: &Frame) -> Result<()> {
        let mut bytes = Vec::new();
        encode_frame(self.next_sequence, frame, &mut bytes);
        let end = self.end + bytes.len() as u64;
        let wants_compaction = self.is_torn || end - self.first_end > self.first_end.max(SMALL_BYTES);
        // Until this has gone well: a new file may be in place already although making it failed.
        self.is_torn = true;
        if wants_compaction {
            return self.compact(frame);
        }
        self.file.write_at(&bytes, self.end)?;
        self.file.sync()?;
        self.is_torn = false;
        self.end = end;
        self.next_sequence += 1;
        Ok(())
    }

    /// Replaces the file by one frame that says all that it said, and `frame`.
    fn compact(&mut self, frame: &Frame) -> Result<()> {
        // Not kept in memory: a store may have a million queues.
        let Some(Contents { mut derived, next_sequence, .. }) = read(&self.side)? else {
            let path = self.side.path.join(DERIVED);
            let reason = "it no longer holds the frames that were written".to_owned();
            return Err(Corruption { path, range: 0..self.end, reason }.into());
        };
        derived.merge(frame.clone());
        *self = Self::create_with(&self.side, next_sequence, &derived.into_frame())?;
        Ok(())
    }
}

/// What was found in the file.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) derived: Derived,
    next_sequence: u64,
    first_end: u64,
    end: u64,
    /// Something that is no frame follows at `end`.
    pub(super) is_torn: bool,
}

fn read(side: &SideFolder) -> Result<Option<Contents>> {
    Ok(side.read(DERIVED, usize::MAX)?.and_then(|bytes| decode_file(&bytes)))
}

pub(super) fn decode_file(bytes: &[u8]) -> Option<Contents> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let (mut sequence, payload) = take_frame(&mut rest)?;
    let mut derived = Derived::from(decode_payload(payload)?);
    let first_end = (bytes.len() - rest.len()) as u64;
    loop {
        let mut behind = rest;
        let Some((next, payload)) = take_frame(&mut behind).filter(|(next, _)| *next == sequence + 1) else { break };
        let Some(frame) = decode_payload(payload) else { break };
        derived.merge(frame);
        (sequence, rest) = (next, behind);
    }
    let is_damaged = (0..rest.len()).any(|at| take_frame(&mut &rest[at..]).is_some());
    let end = (bytes.len() - rest.len()) as u64;
    let is_torn = !rest.is_empty();
    (!is_damaged).then_some(Contents { derived, next_sequence: sequence + 1, first_end, end, is_torn })
}

/// Takes a whole frame, that is one whose checksum is right, from the front: its sequence number and payload.
fn take_frame<'a>(bytes: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let mut fields = Fields(bytes);
    if fields.bytes(FRAME_MAGIC.len())? != FRAME_MAGIC {
        return None;
    }
    let (payload_bytes, sequence) = (usize::try_from(fields.u64()?).ok()?, fields.u64()?);
    let payload = fields.bytes(payload_bytes)?;
    let crc = fields.u32()?;
    if crc != crc32c::crc32c(&bytes[..FRAME_HEADER_BYTES + payload_bytes]) {
        return None;
    }
    *bytes = fields.0;
    Some((sequence, payload))
}

fn decode_payload(payload: &[u8]) -> Option<Frame> {
    let mut fields = Fields(payload);
    let frame = Frame {
        log_offset: fields.log_offset()?,
        store_ms: fields.i64()?,
        queues: fields.list(decode_queue)?,
        index: fields.list(|fields| {
            Some(IndexState {
                name: fields.u64()?,
                next_entry: fields.u32()?,
                bytes: fields.u64()?,
                modified_ns: fields.u64()?,
            })
        })?,
    };
    fields.0.is_empty().then_some(frame)
}

fn decode_queue(fields: &mut Fields<'_>) -> Option<QueueState> {
    let topic_bytes = usize::try_from(fields.u32()?).ok()?;
    Some(QueueState {
        topic: str::from_utf8(fields.bytes(topic_bytes)?).ok()?.to_owned(),
        queue_id: fields.i32()?,
        batch: fields.bool()?,
        min: fields.queue_offset()?,
        next: fields.queue_offset()?,
        entries: fields.u64()?,
        files: fields
            .list(|fields| Some(FileState { base: fields.u64()?, bytes: fields.u64()?, modified_ns: fields.u64()? }))?,
    })
}

fn encode_frame(sequence: u64, frame: &Frame, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(FRAME_MAGIC);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&frame.log_offset.get().to_be_bytes());
    out.extend_from_slice(&frame.store_ms.to_be_bytes());
    push_count(out, frame.queues.len());
    for queue in &frame.queues {
        encode_queue(queue, out);
    }
    push_count(out, frame.index.len());
    for file in &frame.index {
        out.extend_from_slice(&file.name.to_be_bytes());
        out.extend_from_slice(&file.next_entry.to_be_bytes());
        out.extend_from_slice(&file.bytes.to_be_bytes());
        out.extend_from_slice(&file.modified_ns.to_be_bytes());
    }
    let payload_bytes = (out.len() - start - FRAME_HEADER_BYTES) as u64;
    let length_at = start + FRAME_MAGIC.len();
    out[length_at..length_at + 8].copy_from_slice(&payload_bytes.to_be_bytes());
    let crc: [u8; CRC_BYTES] = crc32c::crc32c(&out[start..]).to_be_bytes();
    out.extend_from_slice(&crc);
}

fn encode_queue(queue: &QueueState, out: &mut Vec<u8>) {
    push_count(out, queue.topic.len());
    out.extend_from_slice(queue.topic.as_bytes());
    out.extend_from_slice(&queue.queue_id.to_be_bytes());
    out.push(u8::from(queue.batch));
    for number in [queue.min.get(), queue.next.get(), queue.entries] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    push_count(out, queue.files.len());
    for number in queue.files.iter().flat_map(|file| [file.base, file.bytes, file.modified_ns]) {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn push_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("no store has 2^32 queues or files");
    out.extend_from_slice(&count.to_be_bytes());
}
