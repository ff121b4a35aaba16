//! `mqlog/derived`: how far the queues and the index are durable, one frame a checkpoint.
//!
//! Always: the first frame of the file names all queues; what a frame says was synced before the frame was written.

use std::collections::BTreeMap;
use std::mem::replace;

use super::fields::{Fields, push_crc, push_numbers};
use super::{DERIVED, LastRecord, SideFolder};
use crate::disk::OpenMode;
use crate::error::{Corruption, Result};
use crate::offset::{LogOffset, QueueOffset};

const MAGIC: &[u8; 8] = b"mqlogDR1";
const FRAME_MAGIC: &[u8; 4] = b"mqfr";
/// No file is so long: a million queues take less. A longer one was lengthened by somebody.
const LIMIT_BYTES: usize = 1 << 30;
/// A file that grew by less than this is not worth compacting.
const SMALL_BYTES: u64 = 64 * 1024;
/// No queue is as long as this: positions of its entries must fit 63 bits.
pub(crate) const MAX_QUEUE_ENTRIES: u64 = i64::MAX as u64 / 64;

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Frame<Queues = Vec<QueueState>> {
    /// Everything below it is in queues and index.
    pub(crate) log_offset: LogOffset,
    /// Store time of the last record below.
    pub(crate) store_ms: i64,
    /// That record: where something else stands, the log went on differently, and the frame is about another one.
    pub(crate) last: Option<LastRecord>,
    /// Where the log began.
    pub(crate) log_start: LogOffset,
    /// The queues that changed since the frame before.
    pub(crate) queues: Queues,
    /// All index files.
    pub(crate) index: Vec<IndexState>,
}

/// All frames of the file, merged: the newest word on each queue.
pub(crate) type Derived = Frame<BTreeMap<(String, i32), QueueState>>;

impl Derived {
    /// Reads the file; `None` if there is none that can be believed.
    pub(crate) fn load(side: &SideFolder) -> Result<Option<Self>> {
        Ok(read(side)?.map(|(derived, _)| derived))
    }

    fn merge(&mut self, frame: Frame) {
        (self.log_offset, self.store_ms, self.last) = (frame.log_offset, frame.store_ms, frame.last);
        (self.log_start, self.index) = (frame.log_start, frame.index);
        self.queues.extend(frame.queues.into_iter().map(|queue| ((queue.topic.clone(), queue.queue_id), queue)));
    }
}

/// The file, open for more frames.
#[derive(Debug)]
pub(crate) struct DerivedFile {
    side: SideFolder,
    place: Place,
}

/// Where the next frame goes.
#[derive(Debug)]
pub(super) struct Place {
    next_sequence: u64,
    /// Where the first frame ends: the length after the last compaction.
    first_end: u64,
    end: u64,
    /// What stands at `end` is in doubt, so the next frame goes into a new file.
    pub(super) is_torn: bool,
}

impl DerivedFile {
    /// Makes the file, or replaces it as a whole, durably; `all` names every queue.
    pub(crate) fn create(side: &SideFolder, all: &Frame) -> Result<Self> {
        let bytes = [MAGIC.as_slice(), &encode_frame(0, all)].concat();
        side.replace(DERIVED, &bytes)?;
        let end = bytes.len() as u64;
        let place = Place { next_sequence: 1, first_end: end, end, is_torn: false };
        Ok(Self { side: side.clone(), place })
    }

    /// Opens the file for more frames, and says what is in it; `None` if there is none that can be believed.
    pub(crate) fn open(side: &SideFolder) -> Result<Option<(Self, Derived)>> {
        Ok(read(side)?.map(|(derived, place)| (Self { side: side.clone(), place }, derived)))
    }

    /// Removes the file, if there is one, durably.
    pub(crate) fn remove(side: &SideFolder) -> Result<()> {
        #[cfg(test)]
        if crate::planted::is(crate::planted::Planted::FrameBeforeLog) {
            // A frame beyond the log does no harm once it is gone.
            return Ok(());
        }
        side.remove(DERIVED)?;
        side.storage.sync_dir(&side.path)
    }

    /// Adds a frame, durably; what it says must be durable already. Compacts the file when it has doubled.
    ///
    /// After an error the frames before still count, and the same or a later frame may be given again.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if the file was damaged while it was open: make a new one.
    pub(crate) fn append(&mut self, frame: &Frame) -> Result<()> {
        let Place { next_sequence, first_end, end, is_torn } = &mut self.place;
        let bytes = encode_frame(*next_sequence, frame);
        let new_end = *end + bytes.len() as u64;
        // Until this has gone well: a new file may be in place already although making it failed.
        if replace(is_torn, true) || new_end - *first_end > SMALL_BYTES.max(*first_end) {
            return self.compact(frame);
        }
        let file = self.side.storage.open(&self.side.path.join(DERIVED), OpenMode::ReadWrite)?;
        file.write_at(&bytes, *end)?;
        file.sync()?;
        (*next_sequence, *end, *is_torn) = (*next_sequence + 1, new_end, false);
        Ok(())
    }

    /// Replaces the file by one frame that says all that it said, and `frame`.
    fn compact(&mut self, frame: &Frame) -> Result<()> {
        // Not kept in memory: a store may have a million queues.
        let Some(mut derived) = Derived::load(&self.side)? else {
            let path = self.side.path.join(DERIVED);
            let reason = "it no longer holds the frames that were written".to_owned();
            return Err(Corruption { path, range: 0..self.place.end, reason }.into());
        };
        derived.merge(frame.clone());
        let Derived { log_offset, store_ms, last, log_start, queues, index } = derived;
        let all = Frame { log_offset, store_ms, last, log_start, queues: queues.into_values().collect(), index };
        *self = Self::create(&self.side, &all)?;
        Ok(())
    }
}

fn read(side: &SideFolder) -> Result<Option<(Derived, Place)>> {
    Ok(side.read(DERIVED, LIMIT_BYTES)?.and_then(|bytes| decode_file(&bytes)))
}

pub(super) fn decode_file(bytes: &[u8]) -> Option<(Derived, Place)> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let (mut sequence, payload) = take_frame(&mut rest)?;
    let mut derived = Derived::default();
    derived.merge(decode_payload(payload)?);
    let first_end = (bytes.len() - rest.len()) as u64;
    loop {
        let mut behind = rest;
        let is_next = |(next, _): &(u64, &[u8])| sequence.checked_add(1) == Some(*next);
        let Some((next, payload)) = take_frame(&mut behind).filter(is_next) else { break };
        let Some(frame) = decode_payload(payload) else { break };
        derived.merge(frame);
        (sequence, rest) = (next, behind);
    }
    let is_damaged = (0..rest.len()).any(|at| take_frame(&mut &rest[at..]).is_some());
    let end = (bytes.len() - rest.len()) as u64;
    let is_torn = !rest.is_empty();
    let next_sequence = sequence.checked_add(1)?;
    (!is_damaged).then_some((derived, Place { next_sequence, first_end, end, is_torn }))
}

/// Takes a whole frame, that is one whose checksum is right, from the front: its sequence number and payload.
fn take_frame<'a>(bytes: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let mut fields = Fields(bytes.strip_prefix(FRAME_MAGIC)?);
    let [payload_bytes, sequence] = fields.numbers()?;
    let payload = fields.bytes(payload_bytes)?;
    let covered = &bytes[..bytes.len() - fields.0.len()];
    if fields.numbers()? != [u64::from(crc32c::crc32c(covered))] {
        return None;
    }
    *bytes = fields.0;
    Some((sequence, payload))
}

fn decode_payload(payload: &[u8]) -> Option<Frame> {
    let mut fields = Fields(payload);
    let [log_offset, store_ms, offset, bytes, crc32c, log_start, queue_count] = fields.numbers()?;
    let last = LastRecord::decode([offset, bytes, crc32c], log_offset)?;
    let queues = fields.list(queue_count, decode_queue)?;
    let [index_count] = fields.numbers()?;
    let index = fields.list(index_count, |fields| {
        let [name, next_entry, bytes, modified_ns] = fields.numbers()?;
        Some(IndexState { name, next_entry: u32::try_from(next_entry).ok()?, bytes, modified_ns })
    })?;
    let (log_offset, log_start) = (LogOffset::new(log_offset), LogOffset::new(log_start));
    let frame = Frame { log_offset, store_ms: store_ms.cast_signed(), last, log_start, queues, index };
    fields.0.is_empty().then_some(frame)
}

fn decode_queue(fields: &mut Fields<'_>) -> Option<QueueState> {
    let [topic_bytes] = fields.numbers()?;
    let topic = str::from_utf8(fields.bytes(topic_bytes)?).ok()?.to_owned();
    let [queue_id, batch, min, next, entries, file_count] = fields.numbers()?;
    let files = fields.list(file_count, |fields| {
        let [base, bytes, modified_ns] = fields.numbers()?;
        Some(FileState { base, bytes, modified_ns })
    })?;
    let queue_id = i32::try_from(queue_id.cast_signed()).ok()?;
    if min.max(next).max(entries) > MAX_QUEUE_ENTRIES {
        return None;
    }
    let (min, next) = (QueueOffset::new(min), QueueOffset::new(next));
    Some(QueueState { topic, queue_id, batch: batch == 1, min, next, entries, files })
}

fn encode_frame(sequence: u64, frame: &Frame) -> Vec<u8> {
    let mut out = FRAME_MAGIC.to_vec();
    push_numbers(&mut out, [0, sequence]);
    let payload_at = out.len();
    push_numbers(&mut out, [frame.log_offset.get(), frame.store_ms.cast_unsigned()]);
    push_numbers(&mut out, LastRecord::encode(frame.last));
    push_numbers(&mut out, [frame.log_start.get(), frame.queues.len() as u64]);
    for queue in &frame.queues {
        push_numbers(&mut out, [queue.topic.len() as u64]);
        out.extend_from_slice(queue.topic.as_bytes());
        push_numbers(&mut out, [i64::from(queue.queue_id).cast_unsigned(), u64::from(queue.batch)]);
        push_numbers(&mut out, [queue.min.get(), queue.next.get(), queue.entries, queue.files.len() as u64]);
        for file in &queue.files {
            push_numbers(&mut out, [file.base, file.bytes, file.modified_ns]);
        }
    }
    push_numbers(&mut out, [frame.index.len() as u64]);
    for file in &frame.index {
        push_numbers(&mut out, [file.name, u64::from(file.next_entry), file.bytes, file.modified_ns]);
    }
    let payload_bytes = (out.len() - payload_at) as u64;
    out[FRAME_MAGIC.len()..][..8].copy_from_slice(&payload_bytes.to_be_bytes());
    push_crc(&mut out);
    out
}
