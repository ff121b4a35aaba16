use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use super::*;
use crate::error::Error;
use crate::watched_disk::{Answer, Call, Watch, WatchedDisk};

/// The real disk, with a journal of what was asked of it; one kind of operation fails when told.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailingDisk(Arc<Mutex<Journal>>);

#[derive(Debug, Default)]
struct Journal {
    done: Vec<String>,
    fails: Option<(&'static str, io::ErrorKind)>,
}

impl FailingDisk {
    pub(crate) fn fail(&self, operation: &'static str, kind: io::ErrorKind) {
        self.journal().fails = Some((operation, kind));
    }

    pub(crate) fn mend(&self) {
        self.journal().fails = None;
    }

    pub(crate) fn storage(&self) -> Storage {
        Storage::new(Arc::new(WatchedDisk(Arc::clone(&self.0))))
    }

    fn journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Mutex<Journal> {
    fn answer(&self, call: &Call<'_>, path: &Path) -> Answer {
        let operation = match call {
            Call::Open(_) => "open",
            Call::CreateDirAll => "create_dir_all",
            Call::SyncDir => "sync_dir",
            Call::Rename => "rename",
            Call::RemoveFile => "remove_file",
            Call::List => "list",
            Call::Info => "info",
            Call::FileInfo => "file info",
            Call::SetLen => "set_len",
            Call::Allocate(_) => "allocate",
            Call::ReadAt => "read_at",
            Call::WriteAt(_) => "write_at",
            Call::Sync => "sync",
            Call::Map => "map",
            Call::TryLock => "try_lock",
        };
        let mut journal = self.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, kind)) = journal.fails.filter(|(fails, _)| *fails == operation) {
            return Answer::Fail(kind.into());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        journal.done.push(format!("{operation} {name}"));
        Answer::Go
    }
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn whole(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let mut bytes = vec![0xAA; 100_000];
    let count = disk.open(path, OpenMode::Read).and_then(|file| file.read_at(&mut bytes, 0)).expect("read");
    bytes.truncate(count);
    bytes
}

// Another process: this test program again, running one test that does nothing in the first process.

const ROLE: &str = "MQLOG_TEST_CHILD_FOLDER";

/// Runs the test `name` of this file in a second process with `folder`; it goes on until its input ends.
fn second_process(name: &str, folder: &Path) -> (Child, String) {
    let program = std::env::current_exe().expect("this program has a path");
    let mut child = Command::new(program)
        .args(["--exact", &format!("disk::tests::{name}"), "--nocapture", "--test-threads=1"])
        .env(ROLE, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    let output = BufReader::new(child.stdout.as_mut().expect("it is piped"));
    let lines = output.lines().map(|line| line.expect("text"));
    let answer = lines.filter_map(|line| line.split_once("answer: ").map(|(_, answer)| answer.to_owned())).next();
    (child, answer.expect("the second process answers"))
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    child.wait().expect("it ends");
}

/// In the second process: tells the first one, and stays until it is let go.
fn answer(text: &str) {
    let mut output = io::stdout();
    output.write_all(format!("answer: {text}\n").as_bytes()).and_then(|()| output.flush()).expect("the first listens");
    // The first process closes our input, or ends.
    let _ = io::stdin().lines().count();
}

#[test]
fn in_a_second_process_the_lock_is_tried() {
    let Some(root) = std::env::var_os(ROLE) else { return };
    match StoreLock::take(&Storage::real(), Path::new(&root)) {
        Ok(lock) => {
            lock.mark().expect("mark");
            answer("held");
        }
        Err(Error::Locked { holder, .. }) => answer(holder),
        Err(error) => answer(&error.to_string()),
    }
}

#[test]
fn a_lock_keeps_other_processes_out_until_it_goes() {
    let root = dir();
    let (child, said) = second_process("in_a_second_process_the_lock_is_tried", root.path());
    assert_eq!(said, "held");
    match StoreLock::take(&Storage::real(), root.path()) {
        Err(Error::Locked { path, holder: "another process has the store open" }) => {
            assert_eq!(path, root.path().join("lock"));
        }
        other => panic!("{other:?}"),
    }
    end(child);
    let lock = StoreLock::take(&Storage::real(), root.path()).expect("the other process ended");
    assert!(lock.was_ours());
}

#[test]
fn a_second_open_here_is_refused_and_does_not_drop_the_lock() {
    let root = dir();
    let storage = Storage::real();
    let lock = StoreLock::take(&storage, root.path()).expect("nobody has it");
    lock.mark().expect("mark");
    // Other spellings of the folder are the same store.
    for again in [root.path().to_path_buf(), root.path().join("."), root.path().join("../").join(name_of(&root))] {
        match StoreLock::take(&storage, &again) {
            Err(Error::Locked { holder: "this process has the store open already", .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(StoreLock::is_ours(&storage, &again).expect("ours"));
    }
    let (child, said) = second_process("in_a_second_process_the_lock_is_tried", root.path());
    end(child);
    assert_eq!(said, "another process has the store open");
    drop(lock);
    let (child, said) = second_process("in_a_second_process_the_lock_is_tried", root.path());
    end(child);
    assert_eq!(said, "held");
}

fn name_of(dir: &TempDir) -> std::ffi::OsString {
    dir.path().file_name().expect("a folder has a name").to_os_string()
}

#[test]
fn the_mark_tells_who_wrote_last() {
    let root = dir();
    let storage = Storage::real();
    assert!(!StoreLock::is_ours(&storage, root.path()).expect("no lock file"));
    let lock = StoreLock::take(&storage, root.path()).expect("take");
    assert!(!lock.was_ours());
    drop(lock);
    assert!(!StoreLock::is_ours(&storage, root.path()).expect("an empty lock file"));
    let lock = StoreLock::take(&storage, root.path()).expect("take");
    lock.mark().expect("mark");
    drop(lock);
    assert_eq!(fs::read(root.path().join("lock")).expect("read"), b"mqlg");
    assert!(StoreLock::take(&storage, root.path()).expect("take").was_ours());
    fs::write(root.path().join("lock"), b"lock").expect("as RocketMQ does");
    assert!(!StoreLock::is_ours(&storage, root.path()).expect("read"));
    assert!(!StoreLock::take(&storage, root.path()).expect("take").was_ours());
}

#[test]
fn a_lock_that_was_not_had_leaves_the_store_free() {
    let (root, disk) = (dir(), FailingDisk::default());
    for operation in ["info", "open", "try_lock", "read_at"] {
        disk.fail(operation, io::ErrorKind::Other);
        StoreLock::take(&disk.storage(), root.path()).expect_err("it fails");
        disk.mend();
        StoreLock::take(&disk.storage(), root.path()).unwrap_or_else(|error| panic!("after {operation}: {error}"));
    }
}

#[test]
fn a_read_ends_where_the_file_ends() {
    let dir = dir();
    let file = RealDisk.open(&dir.path().join("f"), OpenMode::Create).expect("create");
    file.write_at(b"0123456789", 5).expect("write");
    let mut buffer = [0xAA; 20];
    assert_eq!(file.read_at(&mut buffer, 3).expect("read"), 12);
    assert_eq!(buffer[..13], *b"\0\x000123456789\xAA");
    assert_eq!(file.read_at(&mut buffer, 15).expect("read"), 0);
    assert_eq!(file.info().expect("info"), RealDisk.info(&dir.path().join("f")).expect("info"));
}

#[test]
fn a_mode_decides_what_opening_does() {
    let dir = dir();
    let path = dir.path().join("f");
    for mode in [OpenMode::Read, OpenMode::ReadWrite] {
        assert_eq!(RealDisk.open(&path, mode).expect_err("nothing there").kind(), io::ErrorKind::NotFound);
    }
    RealDisk.open(&path, OpenMode::Create).and_then(|file| file.write_at(b"abc", 0)).expect("write");
    let file = RealDisk.open(&path, OpenMode::Read).expect("open");
    file.write_at(b"x", 0).expect_err("it is open for reading");
    RealDisk.open(&path, OpenMode::ReadWrite).and_then(|file| file.write_at(b"x", 0)).expect("write");
    assert_eq!(whole(&RealDisk, &path), b"xbc");
    RealDisk.open(&path, OpenMode::Create).expect("empty it");
    assert_eq!(whole(&RealDisk, &path), b"");
}

#[test]
fn blocks_change_neither_bytes_nor_length() {
    let dir = dir();
    let path = dir.path().join("f");
    let file = RealDisk.open(&path, OpenMode::Create).expect("create");
    file.write_at(b"abc", 10).expect("write");
    file.set_len(1 << 20).expect("grow");
    let before = whole(&RealDisk, &path);
    file.allocate(0..0).expect("nothing");
    file.allocate(0..200_000).expect("blocks");
    assert_eq!((whole(&RealDisk, &path), file.info().expect("info").bytes), (before, 1 << 20));
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        assert!(fs::metadata(&path).expect("stat").blocks() * 512 >= 200_000);
    }
}

#[test]
fn a_folder_is_listed_by_name_with_lengths_and_kinds() {
    let dir = dir();
    for (name, bytes) in [("b", 2), ("a", 1), ("c", 3)] {
        fs::write(dir.path().join(name), vec![0; bytes]).expect("a file");
    }
    RealDisk.create_dir_all(&dir.path().join("d/e")).expect("folders");
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere", dir.path().join("gone")).expect("a name without a file");
    let listed = RealDisk.list(dir.path()).expect("list");
    let names: Vec<_> = listed.iter().map(|listed| (listed.name.as_str(), listed.info.is_dir)).collect();
    assert_eq!(names, [("a", false), ("b", false), ("c", false), ("d", true)]);
    assert!(listed[..3].iter().zip(1..).all(|(listed, bytes)| listed.info.bytes == bytes));
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
    let age = now.abs_diff(u128::from(listed[0].info.modified_ns));
    assert!(age < 60_000_000_000, "{age} ns");
    let missing = RealDisk.list(&dir.path().join("x")).expect_err("nothing there");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_mapping_has_the_length_that_was_asked_for() {
    let dir = dir();
    let file = RealDisk.open(&dir.path().join("f"), OpenMode::Create).expect("create");
    file.set_len(10_000).expect("grow");
    file.allocate(0..10_000).expect("blocks");
    for mode in [OpenMode::Read, OpenMode::ReadWrite] {
        let map = file.map(9000, mode).expect("map");
        assert_eq!(map.bytes(), 9000);
        assert_eq!(map.as_mut_ptr(), map.as_mut_ptr());
        map.populate(0..9000);
        map.flush(0..9000).expect("flush");
    }
}

#[test]
fn a_name_is_replaced_and_a_file_goes() {
    let dir = dir();
    let at = |name: &str| dir.path().join(name);
    RealDisk.create_dir_all(&at("d")).expect("a folder");
    fs::write(at("a"), b"new").expect("a file");
    fs::write(at("d/b"), b"old").expect("a file");
    RealDisk.rename(&at("a"), &at("d/b")).expect("rename");
    RealDisk.sync_dir(&at("d")).expect("sync");
    assert_eq!(whole(&RealDisk, &at("d/b")), b"new");
    RealDisk.remove_file(&at("d/b")).expect("remove");
    assert_eq!(RealDisk.info(&at("d/b")).expect_err("gone").kind(), io::ErrorKind::NotFound);
}

#[cfg(unix)]
#[test]
fn in_a_second_process_files_have_a_size_limit() {
    let Some(root) = std::env::var_os(ROLE) else { return };
    let file = RealDisk.open(&Path::new(&root).join("f"), OpenMode::Create).expect("create");
    let limit = rustix::process::Rlimit { current: Some(10_000), maximum: Some(10_000) };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).expect("a lower limit");
    file.write_at(&[1; 100], 9900).expect("up to the limit");
    let kinds = [file.write_at(&[1; 100], 9901), file.set_len(10_001), file.allocate(0..10_001)];
    answer(&format!("{:?}", kinds.map(|result| result.map_err(|error| error.kind()))));
}

#[cfg(unix)]
#[test]
fn a_size_limit_is_an_error_and_not_a_signal() {
    let root = dir();
    let (child, said) = second_process("in_a_second_process_files_have_a_size_limit", root.path());
    end(child);
    assert_eq!(said, "[Err(FileTooLarge), Err(FileTooLarge), Err(FileTooLarge)]");
    assert_eq!(fs::metadata(root.path().join("f")).expect("stat").len(), 10_000);
}

#[test]
fn a_replaced_file_is_the_old_one_or_the_new_one() {
    let (dir, disk) = (dir(), FailingDisk::default());
    let (path, storage) = (dir.path().join("f"), disk.storage());
    storage.replace(&path, b"a first content").expect("a new file");
    disk.journal().done.clear();
    for operation in ["open", "write_at", "sync", "rename"] {
        disk.fail(operation, io::ErrorKind::Other);
        storage.replace(&path, b"never").expect_err("it fails");
        assert_eq!(fs::read(&path).expect("read"), b"a first content", "{operation}");
    }
    disk.mend();
    disk.journal().done.clear();
    storage.replace(&path, b"second").expect("replace");
    let folder = format!("sync_dir {}", name_of(&dir).to_string_lossy());
    assert_eq!(disk.journal().done, ["open f.tmp", "write_at f.tmp", "sync f.tmp", "rename f.tmp", folder.as_str()]);
    assert_eq!(storage.read_whole(&path, 100).expect("read").as_deref(), Some(&b"second"[..]));
    assert_eq!(storage.list(dir.path()).expect("list").len(), 1);
}

#[test]
fn an_error_names_operation_file_and_range() {
    let (dir, disk) = (dir(), FailingDisk::default());
    let (path, storage) = (dir.path().join("f"), disk.storage());
    let file = storage.open(&path, OpenMode::Create).expect("create");
    let name = path.display();
    let why = io::Error::from(io::ErrorKind::PermissionDenied);
    let check = |operation: &'static str, error: Error, text: String| {
        assert_eq!(error.to_string(), format!("{text}: {why}"), "{operation}");
        assert!(std::error::Error::source(&error).is_some() && !error.is_disk_full());
    };
    type Try<'a> = &'a dyn Fn() -> crate::error::Result<()>;
    let tries: [(&str, Try<'_>, String); 10] = [
        ("open", &|| storage.open(&path, OpenMode::Read).map(drop), format!("open {name}")),
        ("read_at", &|| file.read_at(&mut [0; 9], 7).map(drop), format!("read {name} at 7..16")),
        ("write_at", &|| file.write_at(&[0; 9], 7), format!("write {name} at 7..16")),
        ("set_len", &|| file.set_len(10), format!("extend {name} at 0..10")),
        ("allocate", &|| file.allocate(3..5), format!("allocate {name} at 3..5")),
        ("sync", &|| file.sync(), format!("sync {name}")),
        ("map", &|| file.map(10, OpenMode::Read).map(drop), format!("map {name} at 0..10")),
        ("rename", &|| storage.rename(&path, dir.path()), format!("rename {name}")),
        ("remove_file", &|| storage.remove_file(&path), format!("remove {name}")),
        ("info", &|| storage.info(&path).map(drop), format!("stat {name}")),
    ];
    for (operation, attempt, text) in tries {
        disk.fail(operation, io::ErrorKind::PermissionDenied);
        check(operation, attempt().expect_err("it fails"), text);
    }
}

#[test]
fn a_full_disk_is_told_apart() {
    let (dir, disk) = (dir(), FailingDisk::default());
    let file = disk.storage().open(&dir.path().join("f"), OpenMode::Create).expect("create");
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
        disk.fail("allocate", kind);
        match file.allocate(100..350).expect_err("it is full") {
            Error::DiskFull { path, needed_bytes: 250, .. } => assert_eq!(path, dir.path().join("f")),
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_of_the_system_is_told_apart() {
    let file = Storage::real().open(Path::new("/dev/full"), OpenMode::ReadWrite).expect("open");
    let error = file.write_at(b"abc", 0).expect_err("this device is always full");
    assert!(matches!(error, Error::DiskFull { needed_bytes: 3, .. }), "{error:?}");
}

#[test]
fn what_is_missing_is_no_error_where_a_caller_asks() {
    let dir = dir();
    let storage = Storage::real();
    fs::write(dir.path().join("f"), b"0123456789").expect("a file");
    for missing in ["x", "x/y", "f/x"] {
        let path = dir.path().join(missing);
        assert_eq!(storage.info(&path).expect("no error"), None);
        assert!(storage.list(&path).expect("no error").is_empty());
        assert_eq!(storage.read_whole(&path, 10).expect("no error"), None);
        storage.remove_file(&path).expect("no error");
        storage.open(&path, OpenMode::Read).expect_err("opening needs a file");
    }
    assert_eq!(storage.read_whole(dir.path(), 10).expect("a folder"), None);
    assert_eq!(storage.read_whole(&dir.path().join("f"), 4).expect("read").as_deref(), Some(&b"0123"[..]));
}

#[test]
fn a_new_folder_is_synced_into_the_one_above() {
    let (dir, disk) = (dir(), FailingDisk::default());
    disk.storage().create_dir_durably(&dir.path().join("a/b")).expect("folders");
    let done = disk.journal().done.clone();
    let place = |step: &str| done.iter().position(|done| done == step).unwrap_or_else(|| panic!("{step} in {done:?}"));
    let top = format!("sync_dir {}", name_of(&dir).to_string_lossy());
    assert!(place("create_dir_all a") < place(&top) && place("create_dir_all b") < place("sync_dir a"));
    disk.journal().done.clear();
    disk.storage().create_dir_durably(&dir.path().join("a/b")).expect("it is there");
    assert_eq!(disk.journal().done, ["info b"]);
}
