//! What the tests of this module share: a disk that fails when told, a clock that stands, and logs opened in every way.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::super::*;
use crate::clock::Clock;
use crate::disk::{OpenMode, Storage};
use crate::drive::Drive;
use crate::error::{Corruption, Error, Result};
use crate::format::record::RecordCrc;
use crate::message::Message;
use crate::offset::{LogOffset, QueueCursor, QueueOffset};
use crate::side::StoreFormat;
use crate::watched_disk::{Answer, Call, Watch, WatchedDisk};

/// Bytes of a record of topic `t` with an empty body and the record CRC.
pub(super) const RECORD: usize = 112;

/// What fails, and what was synced.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// The disk has room for no more than this at a time; 0: any room.
    pub(super) largest_step: AtomicU64,
    failing: Mutex<Vec<(&'static str, &'static str)>>,
    once: Mutex<Option<(&'static str, &'static str)>>,
    calls: Mutex<HashMap<(&'static str, PathBuf), usize>>,
}

impl Faults {
    /// Lets an operation fail on files with this text in their path.
    pub(super) fn fail(&self, operation: &'static str, path: &'static str) {
        self.failing.lock().unwrap().push((operation, path));
    }

    /// Lets the next operation of a kind fail.
    pub(super) fn fail_once(&self, operation: &'static str, path: &'static str) {
        *self.once.lock().unwrap() = Some((operation, path));
    }

    pub(super) fn mend(&self) {
        self.failing.lock().unwrap().clear();
    }

    pub(super) fn count(&self, operation: &'static str, path: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        let counted = calls.iter().filter(|((done, at), _)| *done == operation && at.to_string_lossy().contains(path));
        counted.map(|(_, count)| count).sum()
    }

    fn ask(&self, operation: &'static str, path: &Path) -> io::Result<()> {
        *self.calls.lock().unwrap().entry((operation, path.to_path_buf())).or_default() += 1;
        let text = path.to_string_lossy();
        let failing = self.failing.lock().unwrap();
        let is_meant = |(failed, part): &(&str, &str)| *failed == operation && text.contains(part);
        let once = self.once.lock().unwrap().take_if(|once| is_meant(once)).is_some();
        if !once && !failing.iter().any(is_meant) {
            return Ok(());
        }
        let is_full = ["allocate", "create"].contains(&operation);
        let kind = if is_full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        Err(io::Error::new(kind, format!("{operation} was told to fail")))
    }
}

impl Watch for Faults {
    fn answer(&self, call: &Call<'_>, path: &Path) -> Answer {
        let operation = match call {
            Call::Open(OpenMode::Create) => "create",
            Call::SyncDir => "sync_dir",
            Call::RemoveFile => "remove",
            Call::SetLen => "set_len",
            Call::Allocate(_) => "allocate",
            Call::WriteAt(_) => "write",
            Call::Sync => "sync",
            _ => return Answer::Go,
        };
        let asked = self.ask(operation, path);
        let limit = self.largest_step.load(Ordering::Relaxed);
        match call {
            Call::Allocate(range) if asked.is_ok() && limit > 0 && range.end - range.start > limit => {
                Answer::Fail(io::ErrorKind::StorageFull.into())
            }
            _ => asked.into(),
        }
    }
}

/// A clock that is set by hand.
#[derive(Debug)]
pub(super) struct HandClock(pub(super) AtomicI64);

impl Clock for HandClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A store's folder and how its log is opened.
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) dir: tempfile::TempDir,
    pub(super) faults: Arc<Faults>,
    pub(super) clock: Arc<HandClock>,
    pub(super) file_bytes: u64,
    pub(super) grouped: bool,
    pub(super) crc: RecordCrc,
}

impl Kit {
    pub(super) fn new(file_bytes: u64, grouped: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(HandClock(AtomicI64::new(1_700_000_000_000)));
        Self { dir, faults: Arc::default(), clock, file_bytes, grouped, crc: RecordCrc::On }
    }

    /// The same files once more, in another folder.
    pub(super) fn copy(&self) -> Self {
        let copy = Self { crc: self.crc, ..Self::new(self.file_bytes, self.grouped) };
        copy.clock.0.store(self.clock.0.load(Ordering::Relaxed), Ordering::Relaxed);
        copy_dir(self.dir.path(), copy.dir.path());
        copy
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The log file that begins at `base`.
    pub(super) fn log_file(&self, base: u64) -> PathBuf {
        self.path(&format!("commitlog/{base:020}"))
    }

    /// Overwrites bytes of the log.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        let base = at / self.file_bytes * self.file_bytes;
        let file = fs::OpenOptions::new().write(true).open(self.log_file(base)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at - base).unwrap();
    }

    pub(super) fn flip(&self, at: u64, bit: u8) {
        let byte = self.bytes(at..at + 1)[0];
        self.write(at, &[byte ^ bit]);
    }

    pub(super) fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let base = range.start / self.file_bytes * self.file_bytes;
        let whole = fs::read(self.log_file(base)).unwrap();
        whole[(range.start - base) as usize..(range.end - base) as usize].to_vec()
    }

    pub(super) fn options(&self) -> LogOptions {
        LogOptions {
            storage: Storage::new(Arc::new(WatchedDisk(Arc::clone(&self.faults)))),
            clock: Arc::clone(&self.clock) as _,
            root: self.dir.path().to_path_buf(),
            wanted: StoreFormat { log_file_bytes: self.file_bytes, ..StoreFormat::default() },
            detect: |_, _, _| Ok(()),
            crc: self.crc,
            grouped: self.grouped,
            read_mode: ReadMode::default(),
            read_only: false,
            salvage: false,
        }
    }

    pub(super) fn try_open(&self) -> Result<OpenedLog> {
        open_log(&self.options(), &mut |_, _| {})
    }

    pub(super) fn open(&self) -> OpenedLog {
        self.try_open().unwrap()
    }

    pub(super) fn salvage(&self) -> OpenedLog {
        open_log(&LogOptions { salvage: true, ..self.options() }, &mut |_, _| {}).unwrap()
    }

    pub(super) fn open_threaded(&self) -> OpenedLog {
        let opened = self.open();
        opened.log.start_preparing(Drive::Threads).unwrap();
        opened
    }

    /// Opening is refused as corrupt, and changes nothing.
    pub(super) fn refused(&self) -> Corruption {
        let before = snapshot(self.dir.path());
        let error = self.try_open().unwrap_err();
        assert!(snapshot(self.dir.path()) == before, "a refused opening changes nothing: {error}");
        match error {
            Error::Corrupt(corruption) => corruption,
            other => panic!("{other}"),
        }
    }

    /// What recoveries cut: each file's offset and bytes.
    pub(super) fn cuts(&self) -> Vec<(String, Vec<u8>)> {
        let files = snapshot(&self.path("mqlog/cut")).into_iter();
        files.map(|(path, bytes)| (path.file_name().unwrap().to_string_lossy().into_owned(), bytes)).collect()
    }
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file below a folder, but the store's lock, which is made to be locked.
pub(super) fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

pub(super) fn cursor(next: u64) -> QueueCursor {
    QueueCursor::new(QueueOffset::new(next))
}

/// Appends messages of topic `t` with these bodies as one unit.
pub(super) fn try_put(log: &CommitLog, queue: i32, cursor: &QueueCursor, bodies: &[&[u8]]) -> Result<Vec<Appended>> {
    let messages: Vec<_> = bodies.iter().map(|body| Message::new("t").queue(queue).body(*body)).collect();
    let messages: Vec<_> = messages.iter().collect();
    let mut unit = Unit::encode(&messages, log.encoding(DEFAULT_HOST), Buffers::default())?;
    let mut placed = Vec::new();
    log.append_unit(&mut unit, Cursors { queue: cursor, light: &[] }, true, &mut |appended| placed.push(appended))?;
    Ok(placed)
}

pub(super) fn put(log: &CommitLog, cursor: &QueueCursor, body: &[u8]) -> Appended {
    try_put(log, 0, cursor, &[body]).unwrap()[0]
}

/// A record as the tests compare it: place, queue, number, body.
pub(super) type Seen = (u64, i32, u64, Vec<u8>);

/// Reads the whole log by `scan`, and by `walk` in small steps, and compares.
pub(super) fn contents(log: &CommitLog) -> (Vec<Seen>, Vec<Range<u64>>) {
    let (mut records, mut damages) = (Vec::new(), Vec::new());
    for item in log.scan(LogOffset::ZERO) {
        match item.unwrap() {
            ScanItem::Record(view) => {
                records.push((
                    view.log_offset().get(),
                    view.queue_id(),
                    view.queue_offset().get(),
                    view.body().to_vec(),
                ));
            }
            ScanItem::Damaged(corruption) => damages.push(corruption.range),
            ScanItem::Blank(_) => {}
        }
    }
    for step in [1, 300, u64::MAX] {
        let (mut walked, mut broken) = (Vec::new(), Vec::new());
        let (mut at, end) = (log.range().start, log.range().end);
        while at < end {
            let next = log.walk(at, end, step, &mut |item| {
                match item {
                    Walked::Record(record) => walked.push((
                        record.log_offset(),
                        record.queue_id(),
                        record.queue_offset(),
                        record.body().to_vec(),
                    )),
                    Walked::Damaged(corruption) => broken.push(corruption.range),
                    Walked::Blank(_) => {}
                }
                Ok(())
            });
            let next = next.unwrap();
            assert!(next > at, "a walk gets on");
            at = next;
        }
        assert_eq!((&walked, &broken), (&records, &damages), "scan and walk agree, in steps of {step}");
    }
    for (at, _, _, body) in &records {
        assert_eq!(log.read(LogOffset::new(*at)).unwrap().body(), body);
    }
    (records, damages)
}

pub(super) fn bodies(log: &CommitLog) -> Vec<Vec<u8>> {
    let (records, damages) = contents(log);
    assert_eq!(damages, Vec::new());
    records.into_iter().map(|(_, _, _, body)| body).collect()
}
