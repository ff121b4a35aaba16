//! What the models and the tests with real threads share: a mapped file, and a log, on a disk of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{Block, MemoryDisk};
use crate::clock::Clock;
use crate::commit_log::{Appended, CommitLog, LogOptions, ReadMode, ScanItem, open_log};
use crate::disk::OpenMode;
use crate::error::Result;
use crate::format::record::RecordCrc;
use crate::mapped_file::MappedFile;
use crate::message::Message;
use crate::offset::{LogOffset, QueueCursor, QueueOffset};
use crate::side::StoreFormat;

/// loom watches the bytes of a mapping in cells of this length; what its models use are multiples of it.
#[cfg(loom)]
pub(crate) const CELL_BYTES: usize = 64;

/// A mapped file, and its bytes.
pub(crate) fn mapped_file(bytes: u64) -> (Arc<MappedFile>, Arc<Block>) {
    let (disk, path) = (MemoryDisk::default(), Path::new("/f"));
    let file = disk.storage().open(path, OpenMode::Create).unwrap();
    file.set_len(bytes).unwrap();
    let block = disk.block(path);
    (Arc::new(MappedFile::new(file, 0, bytes, true).unwrap()), block)
}

#[derive(Debug)]
struct Standing;

impl Clock for Standing {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000
    }
}

/// A log, and the disk it is on.
pub(crate) struct Kit {
    pub(crate) log: CommitLog,
    pub(crate) cursor: Arc<QueueCursor>,
    disk: MemoryDisk,
    root: PathBuf,
}

impl Kit {
    /// The length of a log file.
    pub(crate) const FILE: u64 = 1024;
    /// A record with this body has [`RECORD`](Self::RECORD) bytes, whole cells, and one fills a file.
    pub(crate) const BODY: &[u8] = &[7; 784];
    pub(crate) const RECORD: u64 = 896;
    /// Two records with this body fill a file.
    pub(crate) const HALF: &[u8] = &[7; 336];

    pub(crate) fn new(grouped: bool) -> Self {
        // Two tests of one process must not have the same store open.
        static STORES: AtomicU64 = AtomicU64::new(0);
        let root = PathBuf::from(format!("/memory/{}", STORES.fetch_add(1, Ordering::Relaxed)));
        let disk = MemoryDisk::default();
        let options = LogOptions {
            storage: disk.storage(),
            clock: Arc::new(Standing),
            root: root.clone(),
            wanted: StoreFormat { log_file_bytes: Self::FILE, ..StoreFormat::default() },
            detect: |_, _, _| Ok(()),
            crc: RecordCrc::On,
            grouped,
            read_mode: ReadMode::default(),
            read_only: false,
            salvage: false,
        };
        let opened = open_log(&options, &mut |_, _| {}).unwrap();
        let cursor = Arc::new(QueueCursor::new(QueueOffset::ZERO));
        Self { log: opened.log, cursor, disk, root }
    }

    /// With files that hold a record each, and are durable.
    pub(crate) fn with_records(count: u64) -> Self {
        let kit = Self::new(false);
        for number in 0..count {
            let appended = put(&kit.log, &kit.cursor, Self::BODY).unwrap();
            assert_eq!((appended.log_offset.get(), appended.end().get()), Self::place(number));
        }
        kit.log.flush().unwrap();
        kit
    }

    /// Where a record that fills its file begins and ends.
    pub(crate) fn place(number: u64) -> (u64, u64) {
        (number * Self::FILE, number * Self::FILE + Self::RECORD)
    }

    /// The bytes of the log file that begins at `base`.
    pub(crate) fn block(&self, base: u64) -> Arc<Block> {
        self.disk.block(&self.root.join("commitlog").join(format!("{base:020}")))
    }

    /// Reads what stands at an offset below what may be read. Its bytes were written before, in every sense.
    #[cfg(loom)]
    pub(crate) fn look(&self, at: u64) {
        let view = self.log.read(LogOffset::new(at)).unwrap();
        let position = usize::try_from(at % Self::FILE).unwrap();
        self.block(at / Self::FILE * Self::FILE).looks_at(position..position + view.record_bytes() as usize);
        assert!(view.body().iter().all(|byte| *byte == 7));
    }

    /// Everything is there once, in order.
    pub(crate) fn check(&self, records: u64) {
        let scanned = self.log.scan(LogOffset::ZERO).filter_map(|item| match item.unwrap() {
            ScanItem::Record(view) => Some(view.queue_offset().get()),
            ScanItem::Blank(_) => None,
            ScanItem::Damaged(corruption) => panic!("{corruption}"),
        });
        assert_eq!(scanned.collect::<Vec<_>>(), (0..records).collect::<Vec<_>>());
    }
}

/// Appends a message.
pub(crate) fn put(log: &CommitLog, cursor: &QueueCursor, body: &[u8]) -> Result<Appended> {
    log.append(&Message::new("t").body(body), cursor)
}
