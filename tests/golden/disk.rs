//! Copies of archived stores, and what can be seen of one from outside.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use tempfile::TempDir;

/// A scratch copy of a store.
pub(crate) struct Copy {
    folder: TempDir,
    name: String,
}

impl Copy {
    /// Unpacks `NAME.tar.gz`, with its sparse files and times.
    pub(crate) fn unpack(archives: &Path, name: &str) -> Self {
        let folder = TempDir::new().expect("a scratch folder can be made");
        untar(&archives.join(format!("{name}.tar.gz")), folder.path());
        Self { folder, name: name.to_owned() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }
}

pub(crate) fn untar(archive: &Path, into: &Path) {
    let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(into).status();
    let status = status.unwrap_or_else(|error| panic!("tar cannot be run: {error}"));
    assert!(status.success(), "tar -xzf {} failed", archive.display());
}

/// What a change of a file or folder would show in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    bytes: u64,
    modified: SystemTime,
    content: u64,
}

/// Everything in a folder, itself included.
pub(crate) fn listing(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    list(root, &mut seen);
    seen
}

fn list(path: &Path, seen: &mut BTreeMap<PathBuf, Seen>) {
    let found = fs::symlink_metadata(path).expect("a file of the copy can be looked at");
    let mut hasher = DefaultHasher::new();
    if found.is_dir() {
        for item in fs::read_dir(path).expect("a folder of the copy can be listed") {
            list(&item.expect("a folder of the copy can be listed").path(), seen);
        }
    } else {
        hasher.write(&fs::read(path).expect("a file of the copy can be read"));
    }
    let modified = found.modified().expect("the file system has modification times");
    seen.insert(path.to_owned(), Seen { bytes: found.len(), modified, content: hasher.finish() });
}

/// The files of a folder and the folders in it, with their lengths.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let seen = listing(folder).into_iter().filter(|(path, _)| path.is_file());
    seen.map(|(path, seen)| (path, seen.bytes)).collect()
}

/// The bytes of the log files of a store by their names, which are log offsets.
pub(crate) fn log_files(store: &Path) -> BTreeMap<u64, Vec<u8>> {
    files_by_offset(&store.join("commitlog"))
}

/// The bytes of the files of a folder whose names are offsets.
pub(crate) fn files_by_offset(folder: &Path) -> BTreeMap<u64, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = files.map(|file| file.expect("the folder can be listed").path());
    let named = files.filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path.clone())));
    named.map(|(base, path)| (base, fs::read(path).expect("the file can be read"))).collect()
}

/// The bytes of a piece of the log that does not cross a file's end.
pub(crate) fn log_bytes(files: &BTreeMap<u64, Vec<u8>>, start: u64, bytes: u64) -> &[u8] {
    let (base, file) = files.range(..=start).next_back().expect("the log reaches there");
    let at = usize::try_from(start - base).expect("log files are small here");
    &file[at..at + usize::try_from(bytes).expect("log files are small here")]
}
