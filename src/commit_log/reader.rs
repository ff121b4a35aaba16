//! Positioned reads of a log's files through one private buffer: for opening and verifying, where a bad sector must be
//! an error and nothing may change between being checked and being used.

use crate::disk::File;
use crate::error::Result;

/// The reader reads in pieces of this size.
const PIECE_BYTES: usize = 1024 * 1024;

/// A file of the log as it was found.
#[derive(Debug, Clone)]
pub(crate) struct LogFile {
    pub(crate) base: u64,
    pub(crate) file: File,
    /// Its length on disk; another one than the log's files have is mended when the log is opened for writing.
    pub(crate) bytes: u64,
}

/// The files and a buffer with some of their bytes.
#[derive(Debug)]
pub(super) struct Reader {
    files: Vec<(u64, File)>,
    file_bytes: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl Reader {
    pub(super) fn new(files: &[LogFile], file_bytes: u64) -> Self {
        let files = files.iter().map(|file| (file.base, file.file.clone())).collect();
        Self { files, file_bytes, buffer: Vec::new(), buffer_at: 0 }
    }

    /// The end of the last file.
    pub(super) fn end(&self) -> u64 {
        self.files.last().map_or(0, |(base, _)| base + self.file_bytes)
    }

    /// The distance from `at` to the end of its file.
    pub(super) fn left_in_file(&self, at: u64) -> u64 {
        let start = self.files.first().map_or(0, |(base, _)| *base);
        self.file_bytes - (at - start) % self.file_bytes
    }

    /// Reads inside of one file; returns how many bytes there were.
    pub(super) fn read_at(&self, at: u64, bytes: &mut [u8]) -> Result<usize> {
        let start = self.files.first().map_or(0, |(base, _)| *base);
        let index = usize::try_from((at - start) / self.file_bytes).unwrap_or(usize::MAX);
        let Some((base, file)) = self.files.get(index) else { return Ok(0) };
        let len = usize::try_from(self.left_in_file(at)).map_or(bytes.len(), |left| left.min(bytes.len()));
        file.read_at(&mut bytes[..len], at - base)
    }

    /// Writes inside of one file.
    pub(super) fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let start = self.files.first().map_or(0, |(base, _)| *base);
        let index = usize::try_from((at - start) / self.file_bytes).unwrap_or(usize::MAX);
        let (base, file) = self.files.get(index).expect("what is written back was read from the same file");
        file.write_at(bytes, at - base)
    }

    /// The bytes from `at` on, at least the record that begins there if its file has it, never beyond its file.
    pub(super) fn record_window(&mut self, at: u64) -> Result<&[u8]> {
        let head = self.window(at, 8)?;
        let size = head.first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        let is_record = head.get(4..7) == Some(&[0xDA, 0xA3, 0x20]);
        let size = if is_record && u64::from(size) <= self.left_in_file(at) { size as usize } else { 8 };
        self.window(at, size)
    }

    /// A piece of the bytes from `at` on, never beyond their file, of its own.
    pub(super) fn piece(&self, at: u64) -> Result<Vec<u8>> {
        let len = usize::try_from(self.left_in_file(at)).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let mut bytes = vec![0; len];
        let count = self.read_at(at, &mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// The range from its start to the last byte that is not zero; `None` if all are.
    pub(super) fn find_written(
        &self,
        range: std::ops::Range<u64>,
    ) -> Result<Option<std::ops::Range<crate::LogOffset>>> {
        let mut end = None;
        let mut at = range.start;
        while at < range.end {
            let mut piece = self.piece(at)?;
            let inside = usize::try_from(range.end - at).map_or(piece.len(), |left| left.min(piece.len()));
            piece.truncate(inside);
            if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
                end = Some(at + last as u64 + 1);
            }
            at += if piece.is_empty() { self.left_in_file(at) } else { piece.len() as u64 };
        }
        Ok(end.map(|end| crate::LogOffset::new(range.start)..crate::LogOffset::new(end)))
    }

    fn window(&mut self, at: u64, wanted: usize) -> Result<&[u8]> {
        let left = usize::try_from(self.left_in_file(at)).unwrap_or(usize::MAX);
        let wanted = wanted.min(left);
        let inside = at >= self.buffer_at && at + wanted as u64 <= self.buffer_at + self.buffer.len() as u64;
        if !inside {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(wanted.max(PIECE_BYTES).min(left), 0);
            let count = self.read_at(at, &mut buffer)?;
            buffer.truncate(count);
            (self.buffer, self.buffer_at) = (buffer, at);
        }
        let from = usize::try_from(at - self.buffer_at).expect("the buffer begins at or before its window");
        // What the buffer has of the next file is not this file's.
        let to = self.buffer.len().min(from.saturating_add(left));
        Ok(self.buffer.get(from..to).unwrap_or_default())
    }
}
