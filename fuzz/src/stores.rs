//! The stores that are damaged: small ones, made once in a process, and what they hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use mqlog::format::batch::{BatchItem, push_batch_item};
use mqlog::format::record::SysFlag;
use mqlog::{Clock, Drive, FlushPolicy, Message, MessageStore, StoreOptions};

use super::common::{Content, check_store, fast_dir, files_below};

pub(crate) const LOG_FILE_BYTES: u64 = 2048;

/// A file as it is before a store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    /// `None`: as if it had been written just now.
    pub(crate) modified: Option<SystemTime>,
}

/// The files of a store by their names below its folder.
pub(crate) type Files = BTreeMap<String, Image>;

/// A store, an older copy of it, and what it holds.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) is_closed: bool,
    pub(crate) files: Files,
    pub(crate) older: Files,
    pub(crate) content: Content,
}

/// A clock that goes on by a millisecond whenever it is asked.
#[derive(Debug)]
struct Ticks(AtomicI64);

impl Clock for Ticks {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// How every store here is opened: small files, no threads, and checkpoints only at close.
pub(crate) fn options(root: &Path) -> StoreOptions {
    let options = StoreOptions::new(root).log_file_bytes(LOG_FILE_BYTES).queue_file_entries(8);
    let options = options.batch_queue_file_entries(4).index_slots(8).index_entries(24);
    let options = options.flush(FlushPolicy::Manual).drive(Drive::Manual);
    options
        .checkpoint_interval(Duration::from_secs(3600))
        .clock(std::sync::Arc::new(Ticks(AtomicI64::new(1_800_000_000_000))))
}

/// The base that an input asks for: one that was closed, or one that was killed.
pub(crate) fn base(choice: u8) -> &'static Base {
    static BASES: OnceLock<[Base; 2]> = OnceLock::new();
    &BASES.get_or_init(|| [Base::make(true), Base::make(false)])[usize::from(choice & 1)]
}

impl Base {
    /// Three sessions; the older copy is from after the first one.
    fn make(is_closed: bool) -> Self {
        let dir = fast_dir();
        let (mut files, mut older) = (Files::new(), Files::new());
        for session in 0..3 {
            let store = MessageStore::open(options(dir.path())).unwrap();
            put_session(&store, session);
            match session {
                0 => {
                    store.close().unwrap();
                    older = read_files(dir.path());
                }
                2 if !is_closed => {
                    store.topics().unwrap();
                    // What the folder of an open store holds is what a kill would leave.
                    files = read_files(dir.path());
                    store.close().unwrap();
                }
                _ => {
                    store.close().unwrap();
                    files = read_files(dir.path());
                }
            }
        }
        let copy = fast_dir();
        write_files(copy.path(), &files);
        let store = MessageStore::open(options(copy.path()).read_only(true)).unwrap();
        let content = check_store(&store);
        assert!(content.records.len() > 40 && content.queues.len() > 4, "{content:?}");
        Self { is_closed, files, older, content }
    }
}

fn put_session(store: &MessageStore, session: u64) {
    for number in 0..16_u64 {
        let name = format!("{session}-{number}");
        let message = Message::new(["orders", "payments"][(number % 2) as usize]).queue((number / 2 % 2) as i32);
        let message =
            message.key(name).key(format!("all-{}", number % 3)).owned_body(vec![b'b'; (number * 7 % 50) as usize]);
        match number {
            3 => store.put(message.property("INNER_MULTI_DISPATCH", "light")).unwrap(),
            5 => store.put(message.sys_flag(SysFlag::PREPARED)).unwrap(),
            7 | 8 => {
                let mut body = Vec::new();
                for _ in 0..2 {
                    push_batch_item(&mut body, &BatchItem { flag: 0, body: b"inner", properties: b"" });
                }
                let message = Message::new("batches").property("INNER_NUM", "2").owned_body(body);
                store.put(message.sys_flag(SysFlag::INNER_BATCH)).unwrap()
            }
            _ => store.put(message.tags("tag")).unwrap(),
        };
    }
}

/// Reads all files below a folder, with their times.
pub(crate) fn read_files(root: &Path) -> Files {
    let read = |path: std::path::PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        (name, Image { bytes: fs::read(&path).unwrap(), modified: Some(modified) })
    };
    files_below(root).into_iter().map(read).collect()
}

/// Writes files into an empty folder.
pub(crate) fn write_files(root: &Path, files: &Files) {
    for (name, image) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &image.bytes).unwrap();
        if let Some(modified) = image.modified {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(modified)).unwrap();
        }
    }
}
