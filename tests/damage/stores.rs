//! The stores that are damaged: one that was closed, one that was killed, and older copies of both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mqlog::format::record::SysFlag;
use mqlog::{Drive, FlushPolicy, Message, MessageStore, StoreOptions};

use crate::common::{Content, check_store, copy_dir, fast_dir, files_below, inner_batch, small};

/// How the last session of a store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Killed,
}

/// A store, an older copy of it, and what it holds.
#[derive(Debug)]
pub(crate) struct Base {
    dir: tempfile::TempDir,
    pub(crate) end: End,
    pub(crate) content: Content,
}

/// A store that is damaged and opened.
#[derive(Debug)]
pub(crate) struct Patient {
    _dir: tempfile::TempDir,
    pub(crate) root: PathBuf,
}

pub(crate) fn options(root: &Path) -> StoreOptions {
    // Checkpoints come when a test wants them, or at close.
    small(root).flush(FlushPolicy::Manual).checkpoint_interval(Duration::from_secs(3600))
}

impl Base {
    /// Three sessions; the older copy is from after the first one.
    pub(crate) fn make(end: End) -> Self {
        let dir = fast_dir();
        let root = dir.path().join("store");
        for session in 0..3 {
            let is_killed = session == 2 && end == End::Killed;
            // Nothing may change a store while it is copied.
            let drive = if is_killed { Drive::Manual } else { Drive::Threads };
            let store = MessageStore::open(options(&root).checkpoint_bytes(20_000).drive(drive)).unwrap();
            put_session(&store, session);
            if session == 1 {
                // In the next session there is something above the last frame, and something below.
                std::thread::sleep(Duration::from_millis(20));
            }
            if is_killed {
                store.topics().unwrap();
                // What a copy of a store that is open holds is what a kill would leave.
                copy_dir(&root, &dir.path().join("killed"));
            }
            store.close().unwrap();
            if session == 0 {
                copy_dir(&root, &dir.path().join("older"));
            }
        }
        if end == End::Killed {
            fs::remove_dir_all(&root).unwrap();
            fs::rename(dir.path().join("killed"), &root).unwrap();
        }
        let store = MessageStore::open(options(&root).read_only(true)).unwrap();
        assert_eq!(store.recovery_report().clean, end == End::Closed);
        let content = check_store(&store);
        assert!(content.records.len() > 300 && content.queues.len() > 8);
        Self { dir, end, content }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn older(&self) -> PathBuf {
        self.dir.path().join("older")
    }

    /// A copy, to be damaged.
    pub(crate) fn patient(&self) -> Patient {
        let dir = fast_dir();
        let root = dir.path().join("store");
        copy_dir(&self.root(), &root);
        Patient { _dir: dir, root }
    }

    /// The files below a folder, as paths from the root.
    pub(crate) fn files(&self, folder: &str) -> Vec<PathBuf> {
        let files = files_below(&self.root().join(folder)).into_iter();
        files.map(|path| path.strip_prefix(self.root()).unwrap().to_path_buf()).collect()
    }
}

impl Patient {
    pub(crate) fn open(&self) -> MessageStore {
        MessageStore::open(options(&self.root)).unwrap()
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Closes a store that must be right by now, compares its files with a rebuild, and opens it again: nothing is left
    /// to do, and appends go on.
    pub(crate) fn check_after(&self, store: MessageStore, content: &Content) {
        store.close().unwrap();
        self.compare_with_rebuild();
        let again = self.open();
        let report = again.recovery_report().clone();
        assert!(report.clean && !report.foreign_writer && !report.index_rebuilt, "{report:?}");
        assert_eq!((report.queues_compared, &report.queues_repaired[..]), (0, &[][..]));
        assert_eq!((report.torn, &report.corruptions[..]), (None, &[][..]));
        let found = check_store(&again);
        assert!(found.records == content.records && found.queues == content.queues, "the second opening shows less");
        for ((topic, id), entries) in &content.queues {
            if topic == "orders" {
                let last = entries.last().unwrap();
                let put = again.put(Message::new(topic.as_str()).queue(*id).key("after")).unwrap();
                assert_eq!(put.queue_offset.get(), last.0 + u64::from(last.1), "{topic}/{id}");
            }
        }
        assert_eq!(Content::of_log(&again).records.len(), content.records.len() + 2);
    }

    /// Queues are byte for byte those that are built from the log alone.
    fn compare_with_rebuild(&self) {
        let other = fast_dir();
        copy_dir(&self.root.join("commitlog"), &other.path().join("commitlog"));
        MessageStore::open(options(other.path())).unwrap().close().unwrap();
        for folder in ["consumequeue", "batchconsumequeue"] {
            let (ours, built) = (self.root.join(folder), other.path().join(folder));
            let names = |dir: &Path| -> Vec<PathBuf> {
                let files = files_below(dir).into_iter().map(|path| path.strip_prefix(dir).unwrap().to_path_buf());
                files.filter(|path| !path.to_string_lossy().contains("stray")).collect()
            };
            assert_eq!(names(&ours), names(&built));
            for name in names(&ours) {
                assert!(fs::read(ours.join(&name)).unwrap() == fs::read(built.join(&name)).unwrap(), "{name:?}");
            }
        }
    }
}

/// Messages of every kind that dispatch tells apart.
pub(crate) fn put_session(store: &MessageStore, session: u64) {
    for number in 0..110_u64 {
        let name = format!("{session}-{number}");
        let body = vec![b'b'; (number * 7 % 200) as usize];
        let message = Message::new(["orders", "payments"][(number % 2) as usize]).queue((number / 2 % 2) as i32);
        let message = message.key(name.as_str()).key(format!("all-{}", number % 3)).owned_body(body);
        match number % 25 {
            3 => store.put(message.property("INNER_MULTI_DISPATCH", "%LMQ%a,light")).unwrap(),
            7 => store.put(message.sys_flag(SysFlag::PREPARED)).unwrap(),
            11 => store.put(Message::new("SCHEDULE_TOPIC_XXXX").queue(2).property("DELAY", "3").key(name)).unwrap(),
            15 | 16 | 19 => put_inner_batch(store, 1 + number % 4),
            _ => store.put(message.tags("tag")).unwrap(),
        };
    }
    let batch: Vec<_> = (0..5).map(|number| Message::new("orders").queue(1).key(format!("batch-{number}"))).collect();
    store.put_batch(&batch).unwrap();
}

pub(crate) fn put_inner_batch(store: &MessageStore, count: u64) -> mqlog::Appended {
    store.put(inner_batch("batches", count, b"inner")).unwrap()
}
