//! The files of one log in the order of their offsets.
//!
//! - Neighbours touch: each file's base is the end of the one before it.
//! - Readers take a snapshot: a file that is dropped from the set stays readable for those who have it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::disk::{File, OpenMode, Storage};
use crate::error::Result;
use crate::format::names::{log_file_name, parse_log_file_name};
use crate::sync::RwLock;

use super::MappedFile;

/// Zeros are written in pieces of this size.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// How files of a set are made: under a name that RocketMQ does not look at, complete, then renamed into place.
#[derive(Debug, Clone)]
pub(crate) struct Creation {
    pub(crate) storage: Storage,
    /// Where the files of the set live.
    pub(crate) dir: PathBuf,
    /// Where a file is while it is made.
    pub(crate) new_dir: PathBuf,
    pub(crate) file_bytes: u64,
    /// Write zeros into new blocks: a later sync of the same blocks is then cheaper.
    pub(crate) zeros: bool,
}

impl Creation {
    /// Makes the file for `base` with blocks for its first bytes, durably.
    pub(crate) fn create(&self, base: u64, first_bytes: u64) -> Result<Arc<MappedFile>> {
        let name = log_file_name(base);
        let (temporary, path) = (self.new_dir.join(&name), self.dir.join(&name));
        let file = self.storage.open(&temporary, OpenMode::Create)?;
        let give = || self.give_blocks(&file, 0..first_bytes.min(self.file_bytes));
        let made = file.set_len(self.file_bytes).and_then(|()| give()).and_then(|()| file.sync());
        if let Err(error) = made {
            // Nothing may be left of it: a full disk would never get its space back.
            self.storage.remove_file(&temporary)?;
            return Err(error);
        }
        self.storage.rename(&temporary, &path)?;
        #[cfg(test)]
        if crate::planted::is(crate::planted::Planted::NoDirSyncAfterRename) {
            return Ok(Arc::new(MappedFile::new(file.renamed(&path), base, self.file_bytes, true)?));
        }
        self.storage.sync_dir(&self.dir)?;
        self.storage.sync_dir(&self.new_dir)?;
        Ok(Arc::new(MappedFile::new(file.renamed(&path), base, self.file_bytes, true)?))
    }

    /// Gives blocks to a range of positions; with `zeros`, written, and to be synced by the caller.
    pub(crate) fn give_blocks(&self, file: &File, range: Range<u64>) -> Result<()> {
        file.allocate(range.clone())?;
        if self.zeros { write_zeros(file, range) } else { Ok(()) }
    }
}

/// Writes zeros over a range of positions.
pub(crate) fn write_zeros(file: &File, range: Range<u64>) -> Result<()> {
    range.clone().step_by(ZEROS.len()).try_for_each(|position| {
        let wanted = (range.end - position).min(ZEROS.len() as u64);
        file.write_at(&ZEROS[..wanted as usize], position)
    })
}

/// The files, lowest first.
#[derive(Debug, Default)]
pub(crate) struct MappedFiles(RwLock<Arc<Vec<Arc<MappedFile>>>>);

impl MappedFiles {
    /// Takes files in the order of their bases.
    pub(crate) fn new(files: Vec<Arc<MappedFile>>) -> Self {
        assert!(files.windows(2).all(|pair| pair[0].end() == pair[1].base()), "files of a log touch each other");
        Self(RwLock::new(Arc::new(files)))
    }

    /// All files as they are now.
    pub(crate) fn snapshot(&self) -> Arc<Vec<Arc<MappedFile>>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The file that has the byte at `offset`.
    pub(crate) fn find(&self, offset: u64) -> Option<Arc<MappedFile>> {
        let files = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let index = files.partition_point(|file| file.end() <= offset);
        files.get(index).filter(|file| file.base() <= offset).cloned()
    }

    /// Puts the next file behind the last.
    pub(crate) fn push(&self, file: Arc<MappedFile>) {
        self.change(|files| {
            assert!(files.last().is_none_or(|last| last.end() == file.base()), "files of a log touch each other");
            files.push(file);
        });
    }

    /// Drops every file that ends at or below `offset`, but never the last one; returns them, lowest first.
    pub(crate) fn delete_before(&self, offset: u64) -> Vec<Arc<MappedFile>> {
        self.change(|files| {
            let below = files.partition_point(|file| file.end() <= offset).min(files.len().saturating_sub(1));
            files.drain(..below).collect()
        })
    }

    /// Drops the last file, which holds nothing.
    pub(crate) fn drop_last(&self, file: &Arc<MappedFile>) {
        self.change(|files| {
            files.pop_if(|last| Arc::ptr_eq(last, file));
        });
    }

    fn change<T>(&self, edit: impl FnOnce(&mut Vec<Arc<MappedFile>>) -> T) -> T {
        edit(Arc::make_mut(&mut self.0.write().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Base offsets and lengths, lowest first, and the paths of what is no log file.
type LogFileList = (Vec<(u64, u64)>, Vec<PathBuf>);

/// Tells the log files of a folder from what else is there; a missing folder is empty.
pub(crate) fn list_log_files(storage: &Storage, dir: &Path) -> Result<LogFileList> {
    let (mut files, mut strays) = (Vec::new(), Vec::new());
    for listed in storage.list(dir)? {
        match parse_log_file_name(&listed.name).filter(|_| !listed.info.is_dir) {
            Some(base) => files.push((base, listed.info.bytes)),
            None => strays.push(dir.join(&listed.name)),
        }
    }
    files.sort_unstable();
    Ok((files, strays))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use tempfile::TempDir;

    use super::*;
    use crate::disk::tests::FailingDisk;

    const BYTES: u64 = 8192;

    fn creation(storage: Storage) -> (TempDir, Creation) {
        let root = tempfile::tempdir().expect("a folder");
        let (dir, new_dir) = (root.path().join("log"), root.path().join("new"));
        fs::create_dir(&dir).and_then(|()| fs::create_dir(&new_dir)).expect("folders");
        (root, Creation { storage, dir, new_dir, file_bytes: BYTES, zeros: false })
    }

    fn set(creation: &Creation, count: u64) -> MappedFiles {
        let files = (0..count).map(|number| creation.create(number * BYTES, 4096).expect("create"));
        MappedFiles::new(files.collect())
    }

    fn bases(files: &[Arc<MappedFile>]) -> Vec<u64> {
        files.iter().map(|file| file.base() / BYTES).collect()
    }

    fn count(dir: &Path) -> usize {
        fs::read_dir(dir).expect("list").count()
    }

    #[test]
    fn a_file_is_whole_when_it_has_its_name() {
        for zeros in [false, true] {
            let (_root, mut creation) = creation(Storage::real());
            creation.zeros = zeros;
            let file = creation.create(3 * BYTES, 10 * BYTES).expect("more blocks than bytes are its bytes");
            assert_eq!(file.path(), creation.dir.join("00000000000000024576"));
            assert_eq!((file.base(), file.end(), file.published()), (3 * BYTES, 4 * BYTES, 0));
            assert_eq!(fs::read(file.path()).expect("read"), [0; BYTES as usize]);
            assert_eq!(count(&creation.new_dir), 0);
        }
    }

    #[test]
    fn a_full_disk_leaves_nothing_of_a_file() {
        let disk = FailingDisk::default();
        let (_root, mut creation) = creation(disk.storage());
        creation.zeros = true;
        for operation in ["allocate", "write_at", "sync"] {
            disk.fail(operation, io::ErrorKind::StorageFull);
            assert!(creation.create(0, BYTES).expect_err("it is full").is_disk_full());
            assert_eq!((count(&creation.dir), count(&creation.new_dir)), (0, 0), "{operation}");
        }
        disk.mend();
        creation.create(0, BYTES).expect("there is room again");
    }

    #[test]
    fn a_failure_before_the_name_leaves_the_folder_as_it_was() {
        let disk = FailingDisk::default();
        let (_root, creation) = creation(disk.storage());
        for operation in ["open", "set_len", "rename"] {
            disk.fail(operation, io::ErrorKind::Other);
            creation.create(0, BYTES).expect_err("it fails");
            assert_eq!(count(&creation.dir), 0, "{operation}");
        }
        disk.mend();
        creation.create(0, BYTES).expect("what was left over is written over");
        assert_eq!((count(&creation.dir), count(&creation.new_dir)), (1, 0));
    }

    #[test]
    fn an_offset_finds_the_file_that_has_its_byte() {
        let (_root, creation) = creation(Storage::real());
        let files = MappedFiles::new(vec![
            creation.create(2 * BYTES, 0).expect("create"),
            creation.create(3 * BYTES, 0).expect("create"),
        ]);
        let find = |offset| files.find(offset).map(|file| file.base() / BYTES);
        assert_eq!((find(0), find(2 * BYTES - 1)), (None, None));
        assert_eq!((find(2 * BYTES), find(3 * BYTES - 1)), (Some(2), Some(2)));
        assert_eq!((find(3 * BYTES), find(4 * BYTES - 1)), (Some(3), Some(3)));
        assert_eq!((find(4 * BYTES), find(u64::MAX)), (None, None));
        assert!(MappedFiles::new(Vec::new()).find(0).is_none());
    }

    #[test]
    fn whole_files_below_an_offset_go_but_never_the_last() {
        let (_root, creation) = creation(Storage::real());
        let files = set(&creation, 4);
        assert!(files.delete_before(BYTES - 1).is_empty());
        assert_eq!(bases(&files.delete_before(2 * BYTES + 1)), [0, 1]);
        assert_eq!(bases(&files.snapshot()), [2, 3]);
        assert_eq!(bases(&files.delete_before(u64::MAX)), [2]);
        assert!(files.delete_before(u64::MAX).is_empty());
        assert_eq!(bases(&files.snapshot()), [3]);
        assert!(MappedFiles::new(Vec::new()).delete_before(u64::MAX).is_empty());
    }

    #[test]
    fn a_snapshot_keeps_what_was_dropped() {
        let (_root, creation) = creation(Storage::real());
        let files = set(&creation, 2);
        let before = files.snapshot();
        before[0].writer().store(0, b"still here");
        before[0].publish(10);
        for file in files.delete_before(u64::MAX) {
            fs::remove_file(file.path()).expect("remove");
        }
        assert_eq!((bases(&before), bases(&files.snapshot())), (vec![0, 1], vec![1]));
        assert_eq!(*before[0].slice(0..10).expect("published"), *b"still here");
        assert!(files.find(0).is_none());
    }

    #[test]
    fn only_the_last_file_is_dropped_from_the_end() {
        let (_root, creation) = creation(Storage::real());
        let files = set(&creation, 3);
        let all = files.snapshot();
        files.drop_last(&all[1]);
        assert_eq!(bases(&files.snapshot()), [0, 1, 2]);
        files.drop_last(&all[2]);
        assert_eq!(bases(&files.snapshot()), [0, 1]);
        files.push(Arc::clone(&all[2]));
        assert_eq!(bases(&files.snapshot()), [0, 1, 2]);
    }

    #[test]
    #[should_panic(expected = "files of a log touch each other")]
    fn a_gap_between_files_is_refused() {
        let (_root, creation) = creation(Storage::real());
        let files = set(&creation, 1);
        files.push(creation.create(2 * BYTES, 0).expect("create"));
    }

    #[test]
    fn a_folder_tells_log_files_from_strays() {
        let (_root, creation) = creation(Storage::real());
        set(&creation, 2);
        fs::write(creation.dir.join("notes"), b"x").expect("a stray");
        fs::create_dir(creation.dir.join("00000000000000099999")).expect("a folder with a file's name");
        fs::OpenOptions::new()
            .write(true)
            .open(creation.dir.join("00000000000000008192"))
            .and_then(|file| file.set_len(5))
            .expect("a short file");
        let (files, mut strays) = list_log_files(&creation.storage, &creation.dir).expect("list");
        strays.sort();
        assert_eq!(files, [(0, BYTES), (BYTES, 5)]);
        assert_eq!(strays, [creation.dir.join("00000000000000099999"), creation.dir.join("notes")]);
        let missing = list_log_files(&creation.storage, &creation.dir.join("x")).expect("a missing folder is empty");
        assert_eq!(missing, (Vec::new(), Vec::new()));
    }

    #[test]
    fn zeros_cover_the_range_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let bytes = 3 * ZEROS.len();
        let file = Storage::real().open(&dir.path().join("f"), OpenMode::Create).expect("create");
        file.write_at(&vec![1; bytes], 0).expect("write");
        write_zeros(&file, 7..7).expect("nothing");
        write_zeros(&file, 5..bytes as u64 - 5).expect("zeros");
        let all = fs::read(dir.path().join("f")).expect("read");
        let wrong = all.iter().enumerate().find(|(at, byte)| **byte != u8::from(*at < 5 || *at >= bytes - 5));
        assert_eq!((all.len(), wrong), (bytes, None));
    }
}
