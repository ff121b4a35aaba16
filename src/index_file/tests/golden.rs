//! RocketMQ's own index files: the same puts give the same bytes, and its layouts are found.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::super::{IndexSet, detect_layout};
use crate::clock::SystemClock;
use crate::disk::Storage;
use crate::format::index::{IndexEntry, IndexHeader, IndexLayout};
use crate::format::record::{Item, RecordView, Transaction};
use crate::offset::LogOffset;

/// A golden store, unpacked, with its log read.
struct Store {
    dir: tempfile::TempDir,
    name: String,
    log: BTreeMap<u64, Vec<u8>>,
}

impl Store {
    fn unpack(archive: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir.path()).status().unwrap();
        assert!(status.success());
        let name = archive.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz").to_owned();
        let mut log = BTreeMap::new();
        for path in files(&dir.path().join(&name).join("commitlog")) {
            let bytes = fs::read(&path).unwrap();
            let mut at = 0;
            while let Ok(Item::Record(record)) = Item::decode(&bytes[at..]) {
                log.insert(record.log_offset(), record.bytes().to_vec());
                at += record.bytes().len();
            }
        }
        Self { dir, name, log }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    fn index(&self) -> Vec<PathBuf> {
        files(&self.root().join("index"))
    }

    /// The keys of a record in the order in which RocketMQ puts them.
    fn keys(record: &RecordView<'_>) -> Vec<String> {
        let is_rollback = record.sys_flag().transaction() == Transaction::Rollback;
        let keys = record.unique_key().into_iter().chain(record.keys());
        keys.filter(|key| !is_rollback && !key.is_empty()).map(|key| key.into_owned()).collect()
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(names) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The golden stores of the folder that `MQLOG_GOLDEN_DIR` names.
fn stores() -> Vec<(Store, IndexLayout)> {
    let Some(folder) = std::env::var_os("MQLOG_GOLDEN_DIR").map(PathBuf::from) else { return Vec::new() };
    let described: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("stores.json")).unwrap()).unwrap();
    let archives = files(&folder).into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "gz"));
    archives
        .map(|archive| {
            let store = Store::unpack(&archive);
            let options = described[&store.name]["options"].as_array().unwrap();
            let option = |name: &str| {
                let at = options.iter().position(|option| option == name).unwrap();
                options[at + 1].as_str().unwrap().parse().unwrap()
            };
            let layout = IndexLayout { slots: option("--index-slots"), entries: option("--index-entries") };
            (store, layout)
        })
        .collect()
}

#[test]
fn explore() {
    for (store, layout) in stores() {
        let ours = tempfile::tempdir().unwrap();
        let (set, _) =
            IndexSet::open(Storage::real(), ours.path(), layout, &ours.path().join("new"), Arc::new(SystemClock))
                .unwrap();
        for (offset, record) in &store.log {
            let record = RecordView::decode(record).unwrap();
            set.put(&record.topic(), Store::keys(&record), LogOffset::new(*offset), record.store_ms()).unwrap();
        }
        set.sync().unwrap();
        let theirs = store.index();
        let mine = files(&ours.path().join("index"));
        let found = detect_layout(&Storage::real(), &theirs, &[]).unwrap();
        println!(
            "{} theirs {} ours {} layout {:?} found {:?}",
            store.name,
            theirs.len(),
            mine.len(),
            layout,
            found == Some(layout)
        );
        for (a, b) in theirs.iter().zip(&mine) {
            let (a, b) = (fs::read(a).unwrap(), fs::read(b).unwrap());
            if a == b {
                println!("   same");
                continue;
            }
            let (ha, hb) = (IndexHeader::decode(&a).unwrap(), IndexHeader::decode(&b).unwrap());
            println!("   {ha:?}\n   {hb:?}");
            let n = (1..layout.entries).find(|n| {
                let at = layout.entry_at(*n) as usize;
                a.get(at..at + 20) != b.get(at..at + 20)
            });
            if let Some(n) = n {
                let at = layout.entry_at(n) as usize;
                println!("   entry {n} {:?} {:?}", IndexEntry::decode(&a[at..]), IndexEntry::decode(&b[at..]));
            }
        }
    }
}
