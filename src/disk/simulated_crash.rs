//! What may come out of a crash of a simulated disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::simulated::SimulatedDisk;
use super::simulated_state::{Id, Node, ROOT, State};

/// A store through a mapping: file, position, bytes.
type Store = (Id, u64, Arc<[u8]>);

/// The state of a disk between two calls.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    state: State,
    /// The store that led here, with the state before it.
    store: Option<(State, Store)>,
}

/// Something that can come out of a power loss in more than one way.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Length(Id),
    Sector(Id, usize),
    Name(Id, String),
}

/// Everything that is open in a power loss at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Chances {
    what: Vec<What>,
    /// In how many ways each can come out, at least 2. Way 0 is that nothing of it reached the disk.
    pub(crate) options: Vec<usize>,
    /// Which way means that all of it did.
    pub(crate) whole: Vec<usize>,
}

impl Chances {
    /// In how many ways all of it can come out.
    pub(crate) fn product(&self) -> u128 {
        self.options.iter().fold(1, |product: u128, options| product.saturating_mul(*options as u128))
    }
}

impl Moment {
    pub(super) fn new(state: State, store: Option<(State, Store)>) -> Self {
        Self { state, store }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// A number for what processes see.
    pub(crate) fn hash(&self) -> u128 {
        self.state.hash()
    }

    /// A disk that goes on from here.
    pub(crate) fn disk(&self) -> SimulatedDisk {
        SimulatedDisk::of(self.state.clone())
    }

    /// In how many ways a kill can hit: with the last call done, or in the middle of a store, at each of its 8 bytes.
    pub(crate) fn kill_options(&self) -> usize {
        let cuts = |(_, (_, position, bytes)): &(State, Store)| (position + bytes.len() as u64 - 1) / 8 - position / 8;
        1 + self.store.as_ref().map_or(0, cuts) as usize
    }

    /// What a kill leaves: what the operating system had, all of it as unsynced as it was.
    pub(crate) fn kill(&self, option: usize) -> Self {
        let Some((before, (id, position, bytes))) = self.store.as_ref().filter(|_| option > 0) else {
            return Self { state: self.state.clone(), store: None };
        };
        let end = (position / 8 + option as u64) * 8;
        let mut state = before.clone();
        state.write(*id, *position, &bytes[..(end - position) as usize], true);
        Self { state, store: None }
    }

    /// What is open in a power loss.
    pub(crate) fn chances(&self) -> Chances {
        let mut chances = Chances { what: Vec::new(), options: Vec::new(), whole: Vec::new() };
        let mut push = |what, options, whole| {
            chances.what.push(what);
            chances.options.push(options);
            chances.whole.push(whole);
        };
        for id in self.reachable() {
            match &*self.state.nodes[&id] {
                Node::Folder(folder) => {
                    for (name, changes) in &folder.pending {
                        push(What::Name(id, name.clone()), 1 + changes.len(), changes.len());
                    }
                }
                Node::File(file) => {
                    if !file.lens.is_empty() {
                        push(What::Length(id), 1 + file.lens.len(), file.lens.len());
                    }
                    for (sector, changes) in &file.pending {
                        push(What::Sector(id, *sector), file.sector_options(*sector), changes.len());
                    }
                }
            }
        }
        chances
    }

    /// Everything that has, or may have, a name after a power loss.
    fn reachable(&self) -> BTreeSet<Id> {
        let (mut reached, mut waiting) = (BTreeSet::from([ROOT]), vec![ROOT]);
        while let Some(id) = waiting.pop() {
            if let Node::Folder(folder) = &*self.state.nodes[&id] {
                waiting.extend(folder.possible().filter(|id| reached.insert(*id)));
            }
        }
        reached
    }

    /// What a power loss leaves, with one way chosen for each of the chances: all of it durable.
    pub(crate) fn power_loss(&self, chances: &Chances, chosen: &[usize]) -> Self {
        let mut names: BTreeMap<Id, BTreeMap<String, usize>> = BTreeMap::new();
        let mut sectors: BTreeMap<Id, BTreeMap<usize, usize>> = BTreeMap::new();
        let mut lengths: BTreeMap<Id, usize> = BTreeMap::new();
        for (what, option) in chances.what.iter().zip(chosen) {
            match what {
                What::Length(id) => drop(lengths.insert(*id, *option)),
                What::Sector(id, sector) => drop(sectors.entry(*id).or_default().insert(*sector, *option)),
                What::Name(id, name) => drop(names.entry(*id).or_default().insert(name.clone(), *option)),
            }
        }
        let mut state = self.state.clone();
        state.nodes = BTreeMap::new();
        // Files without a name are gone.
        let mut waiting = vec![ROOT];
        while let Some(id) = waiting.pop() {
            let node = &self.state.nodes[&id];
            let after = match &**node {
                Node::Folder(folder) => {
                    let folder = folder.after(names.get(&id).unwrap_or(&BTreeMap::new()));
                    waiting.extend(folder.names.values());
                    Arc::new(Node::Folder(folder))
                }
                Node::File(file) if file.is_settled() => Arc::clone(node),
                Node::File(file) => {
                    let length = match lengths.get(&id).copied().unwrap_or(0) {
                        0 => file.durable.len() as u64,
                        option => file.lens[option - 1],
                    };
                    Arc::new(Node::File(file.after(length, sectors.get(&id).unwrap_or(&BTreeMap::new()))))
                }
            };
            state.nodes.insert(id, after);
        }
        Self { state, store: None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::simulated::{Fault, SimulatedDisk};
    use super::super::{Disk, OpenMode};
    use super::Moment;

    const FILE: &str = "/top/f";

    fn read(disk: &SimulatedDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(Path::new(path), OpenMode::Read).ok()?;
        let mut bytes = vec![0; 4096];
        let count = file.read_at(&mut bytes, 0).expect("it can be read");
        bytes.truncate(count);
        Some(bytes)
    }

    /// Everything that a power loss can leave of a file.
    fn outcomes(moment: &Moment, path: &str) -> BTreeSet<Option<Vec<u8>>> {
        let chances = moment.chances();
        let mut chosen = vec![0; chances.options.len()];
        let mut found = BTreeSet::new();
        loop {
            found.insert(read(&moment.power_loss(&chances, &chosen).disk(), path));
            let Some(next) = chosen.iter().zip(&chances.options).position(|(at, options)| at + 1 < *options) else {
                return found;
            };
            chosen[next] += 1;
            chosen[..next].fill(0);
        }
    }

    /// A file whose name, length and bytes are durable.
    fn disk_with(bytes: &[u8]) -> SimulatedDisk {
        let disk = SimulatedDisk::default();
        disk.create_dir_all(Path::new("/top")).expect("a folder");
        disk.sync_dir(Path::new("/")).expect("its name");
        let file = disk.open(Path::new(FILE), OpenMode::Create).expect("a file");
        file.write_at(bytes, 0).and_then(|()| file.sync()).expect("its bytes");
        disk.sync_dir(Path::new("/top")).expect("its name");
        disk
    }

    fn some(outcomes: &[&[u8]]) -> BTreeSet<Option<Vec<u8>>> {
        outcomes.iter().map(|bytes| Some(bytes.to_vec())).collect()
    }

    #[test]
    fn what_is_synced_stays_and_what_is_not_may_go() {
        let disk = disk_with(b"one");
        assert_eq!(outcomes(&disk.moment(), FILE), some(&[b"one"]));
        let file = disk.open(Path::new(FILE), OpenMode::ReadWrite).expect("open");
        file.write_at(b"two", 0).expect("write");
        assert_eq!(outcomes(&disk.moment(), FILE), some(&[b"one", b"two"]));
        file.write_at(b"three", 0).expect("write");
        // Length and bytes are lost or kept apart from each other.
        assert_eq!(outcomes(&disk.moment(), FILE), some(&[b"one", b"two", b"thr", b"one\0\0", b"two\0\0", b"three"]));
        assert_eq!(read(&disk.moment().kill(0).disk(), FILE), Some(b"three".to_vec()));
        file.sync().expect("sync");
        assert_eq!(outcomes(&disk.moment(), FILE), some(&[b"three"]));
    }

    #[test]
    fn sectors_are_lost_one_by_one_and_each_keeps_its_order() {
        let disk = disk_with(&[0; 1024]);
        let file = disk.open(Path::new(FILE), OpenMode::ReadWrite).expect("open");
        file.write_at(&[1; 1024], 0).and_then(|()| file.write_at(&[2], 0)).expect("write");
        let found: BTreeSet<_> =
            outcomes(&disk.moment(), FILE).into_iter().flatten().map(|b| (b[0], b[1023])).collect();
        assert_eq!(found, BTreeSet::from([(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]));
    }

    #[test]
    fn a_store_through_a_mapping_is_torn_at_eight_bytes() {
        let disk = disk_with(&[0; 512]);
        let file = disk.open(Path::new(FILE), OpenMode::ReadWrite).expect("open");
        let map = file.map(512, OpenMode::ReadWrite).expect("map");
        disk.record();
        let observer = map.observer().expect("the disk looks on");
        observer.stored(Path::new(FILE), 4, &[7; 16], true);
        let moments = disk.take_moments();
        let found: BTreeSet<usize> = outcomes(&moments[1], FILE).into_iter().flatten().map(count).collect();
        assert_eq!(found, BTreeSet::from([0, 4, 12, 16]));
        let kills = (0..moments[1].kill_options()).map(|option| read(&moments[1].kill(option).disk(), FILE));
        assert_eq!(kills.map(|bytes| count(bytes.expect("it is there"))).collect::<Vec<_>>(), [16, 4, 12]);
        map.flush(0..20).expect("flush");
        assert_eq!(outcomes(&disk.moment(), FILE).len(), 1);
    }

    fn count(bytes: Vec<u8>) -> usize {
        bytes.iter().filter(|byte| **byte == 7).count()
    }

    #[test]
    fn a_name_is_lost_until_its_folder_is_synced() {
        let disk = disk_with(b"old");
        let (new, old) = (Path::new("/top/new"), Path::new(FILE));
        let file = disk.open(new, OpenMode::Create).expect("create");
        file.write_at(b"new", 0).and_then(|()| file.sync()).expect("write");
        assert!(outcomes(&disk.moment(), "/top/new").contains(&None));
        disk.rename(new, old).expect("rename");
        assert_eq!(outcomes(&disk.moment(), FILE), some(&[b"old", b"new"]));
        disk.sync_dir(Path::new("/top")).expect("sync");
        assert_eq!(outcomes(&disk.moment(), FILE), some(&[b"new"]));
        disk.remove_file(old).expect("remove");
        assert_eq!(outcomes(&disk.moment(), FILE), BTreeSet::from([Some(b"new".to_vec()), None]));
    }

    #[test]
    fn after_a_failed_sync_the_next_one_succeeds_and_the_disk_keeps_the_old_bytes() {
        let disk = disk_with(b"old");
        let file = disk.open(Path::new(FILE), OpenMode::ReadWrite).expect("open");
        file.write_at(b"new", 0).expect("write");
        disk.trace();
        disk.fail(disk.calls(), Fault::Error(5));
        assert_eq!(file.sync().expect_err("it fails").raw_os_error(), Some(5));
        file.sync().expect("the second sync says that all is well");
        let called: Vec<_> = disk.take_trace().into_iter().map(|call| (call.operation, call.path)).collect();
        assert_eq!(called, [("sync", FILE.into()), ("sync", FILE.into())]);
        assert_eq!(read(&disk, FILE), Some(b"new".to_vec()));
        assert_eq!(read(&disk.moment().kill(0).disk(), FILE), Some(b"new".to_vec()));
        assert_eq!(outcomes(&disk.moment(), FILE), some(&[b"old"]));
        // Written once more, the same bytes are on their way again.
        file.write_at(b"new", 0).and_then(|()| file.sync()).expect("write");
        assert_eq!(outcomes(&disk.moment(), FILE), some(&[b"new"]));
    }

    #[test]
    fn a_short_write_leaves_its_beginning_and_a_dead_disk_nothing() {
        let disk = disk_with(b"....");
        let file = disk.open(Path::new(FILE), OpenMode::ReadWrite).expect("open");
        disk.fail(disk.calls(), Fault::ShortWrite(2));
        file.write_at(b"abcd", 0).expect_err("it is short");
        assert_eq!(read(&disk, FILE), Some(b"ab..".to_vec()));
        disk.switch_off();
        file.write_at(b"abcd", 0).expect_err("the disk is off");
        assert_eq!(read(&disk.moment().disk(), FILE), Some(b"ab..".to_vec()));
    }

    #[test]
    fn equal_disks_have_equal_hashes() {
        let (one, other) = (disk_with(b"same"), disk_with(b"same"));
        assert_eq!(one.moment().hash(), other.moment().hash());
        let file = other.open(Path::new(FILE), OpenMode::ReadWrite).expect("open");
        file.write_at(b"x", 700).expect("write");
        assert_ne!(one.moment().hash(), other.moment().hash());
    }
}
