//! What a simulated disk holds: what is certain, and what is on its way.
//!
//! - A file is a number of sectors. Each has its durable copy and the list of changes since its last sync.
//! - A folder has its durable names and the list of changes since its last sync; so has a file its length.
//! - Everything is behind `Arc`s: to keep a state costs little.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::Arc;

use super::FileInfo;

pub(super) const SECTOR: usize = 512;
/// Names a file or folder.
pub(super) type Id = u64;

const ZEROS: [u8; SECTOR] = [0; SECTOR];

/// Bytes that were written into one sector.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) at: usize,
    pub(super) bytes: Arc<[u8]>,
    /// Through a mapping, so the disk may have a part of it.
    pub(super) mapped: bool,
}

impl Change {
    /// In how many ways it can be cut at 8 bytes.
    pub(super) fn cuts(&self) -> usize {
        if self.mapped { (self.at + self.bytes.len() - 1) / 8 - self.at / 8 } else { 0 }
    }

    fn apply(&self, sector: &mut [u8; SECTOR]) {
        sector[self.at..self.at + self.bytes.len()].copy_from_slice(&self.bytes);
    }

    /// Applies what lies before the cut, counted from 0.
    fn apply_cut(&self, cut: usize, sector: &mut [u8; SECTOR]) {
        let end = (self.at / 8 + 1 + cut) * 8;
        sector[self.at..end].copy_from_slice(&self.bytes[..end - self.at]);
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct FileNode {
    /// What the disk holds for certain.
    pub(super) durable: Vec<u8>,
    /// Lengths since the last sync, the newest last.
    pub(super) lens: Vec<u64>,
    /// Changes since the last sync, by sector.
    pub(super) pending: BTreeMap<usize, Vec<Change>>,
    /// What processes see of sectors whose sync failed: the disk has their old copy, and nobody will write them again.
    frozen: BTreeMap<usize, Arc<[u8; SECTOR]>>,
    /// Which of the first 128 sectors have blocks; those behind count as having them.
    blocks: u128,
    durable_blocks: u128,
    modified: u64,
    durable_modified: u64,
}

impl FileNode {
    pub(super) fn len(&self) -> u64 {
        self.lens.last().copied().unwrap_or(self.durable.len() as u64)
    }

    /// Is everything that processes see also on the disk?
    pub(super) fn is_settled(&self) -> bool {
        self.lens.is_empty() && self.pending.is_empty() && self.frozen.is_empty()
    }

    fn durable_sector(&self, sector: usize) -> [u8; SECTOR] {
        let mut bytes = ZEROS;
        let durable = self.durable.get(sector * SECTOR..).unwrap_or_default();
        let present = durable.len().min(SECTOR);
        bytes[..present].copy_from_slice(&durable[..present]);
        bytes
    }

    /// A sector as processes see it.
    fn seen_sector(&self, sector: usize) -> [u8; SECTOR] {
        let mut bytes = self.frozen.get(&sector).map_or_else(|| self.durable_sector(sector), |frozen| **frozen);
        self.pending.get(&sector).into_iter().flatten().for_each(|change| change.apply(&mut bytes));
        bytes
    }

    /// The file as processes see it.
    pub(super) fn seen(&self) -> Vec<u8> {
        let len = self.len() as usize;
        let mut bytes = self.durable.clone();
        bytes.resize(len.next_multiple_of(SECTOR), 0);
        for sector in self.frozen.keys().chain(self.pending.keys()) {
            if let Some(target) = bytes.get_mut(sector * SECTOR..(sector + 1) * SECTOR) {
                target.copy_from_slice(&self.seen_sector(*sector));
            }
        }
        bytes.truncate(len);
        bytes
    }

    /// In how many ways a sector can come out of a power loss: after each of its changes, and in the middle of each.
    pub(super) fn sector_options(&self, sector: usize) -> usize {
        let changes = &self.pending[&sector];
        1 + changes.len() + changes.iter().map(Change::cuts).sum::<usize>()
    }

    fn sector_after(&self, sector: usize, option: usize) -> [u8; SECTOR] {
        let mut bytes = self.durable_sector(sector);
        let changes = &self.pending[&sector];
        if option <= changes.len() {
            changes[..option].iter().for_each(|change| change.apply(&mut bytes));
            return bytes;
        }
        let mut cut = option - changes.len() - 1;
        for change in changes {
            if cut < change.cuts() {
                change.apply_cut(cut, &mut bytes);
                return bytes;
            }
            cut -= change.cuts();
            change.apply(&mut bytes);
        }
        unreachable!("the option is one of them");
    }

    /// The file after a power loss: its length, and what each sector with changes holds.
    pub(super) fn after(&self, len: u64, options: &BTreeMap<usize, usize>) -> Self {
        let mut durable = self.durable.clone();
        durable.resize((len as usize).max(durable.len()).next_multiple_of(SECTOR), 0);
        for (sector, option) in options {
            if let Some(target) = durable.get_mut(sector * SECTOR..(sector + 1) * SECTOR) {
                target.copy_from_slice(&self.sector_after(*sector, *option));
            }
        }
        durable.truncate(len as usize);
        let modified = if len == self.len() { self.modified } else { self.durable_modified };
        let blocks = self.durable_blocks;
        let (durable_blocks, durable_modified) = (blocks, modified);
        Self { durable, blocks, durable_blocks, modified, durable_modified, ..Self::default() }
    }

    fn write(&mut self, position: u64, bytes: &[u8], mapped: bool) {
        let (mut at, mut rest) = (position as usize, bytes);
        while !rest.is_empty() {
            let (sector, inside) = (at / SECTOR, at % SECTOR);
            let (piece, behind) = rest.split_at(rest.len().min(SECTOR - inside));
            let seen = self.seen_sector(sector);
            let is_frozen = self.frozen.contains_key(&sector);
            if is_frozen && !self.pending.contains_key(&sector) {
                // The whole sector is on its way again.
                let mut whole = seen;
                whole[inside..inside + piece.len()].copy_from_slice(piece);
                self.push(sector, Change { at: 0, bytes: whole.as_slice().into(), mapped });
            } else if seen[inside..inside + piece.len()] != *piece {
                self.push(sector, Change { at: inside, bytes: piece.into(), mapped });
            }
            at += piece.len();
            rest = behind;
        }
        let end = position + bytes.len() as u64;
        if end > self.len() {
            self.lens.push(end);
        }
    }

    fn push(&mut self, sector: usize, change: Change) {
        self.pending.entry(sector).or_default().push(change);
    }

    fn set_len(&mut self, len: u64) {
        let before = self.len();
        if len < before {
            self.write(len, &vec![0; (before - len) as usize], false);
        }
        if len != before {
            self.lens.push(len);
        }
    }

    /// Takes the changes of the sectors of a range out of those on their way.
    fn take_pending(&mut self, range: Range<u64>) -> BTreeMap<usize, Vec<Change>> {
        let mut taken = self.pending.split_off(&(range.start as usize / SECTOR));
        let mut behind = taken.split_off(&usize::try_from(range.end.div_ceil(SECTOR as u64)).unwrap_or(usize::MAX));
        self.pending.append(&mut behind);
        taken
    }

    /// Makes the changes of some sectors, and the length, durable.
    fn sync(&mut self, range: Range<u64>) {
        let len = self.len() as usize;
        self.durable.resize(len.max(self.durable.len()).next_multiple_of(SECTOR), 0);
        for (sector, changes) in self.take_pending(range) {
            self.frozen.remove(&sector);
            let Some(target) = self.durable.get_mut(sector * SECTOR..(sector + 1) * SECTOR) else { continue };
            for change in &changes {
                target[change.at..change.at + change.bytes.len()].copy_from_slice(&change.bytes);
            }
        }
        self.durable.truncate(len);
        self.lens.clear();
        (self.durable_modified, self.durable_blocks) = (self.modified, self.blocks);
    }

    /// What a failed sync leaves: the system takes the sectors for written, and the disk has their old copies.
    fn freeze(&mut self, range: Range<u64>) {
        let seen: Vec<_> = self.pending.keys().map(|sector| (*sector, Arc::new(self.seen_sector(*sector)))).collect();
        let taken = self.take_pending(range);
        self.frozen.extend(seen.into_iter().filter(|(sector, _)| taken.contains_key(sector)));
    }

    /// Which of the first 128 sectors a range touches.
    fn blocks_of(range: &Range<u64>) -> u128 {
        let bits = |bytes: u64| match bytes {
            sectors @ 0..128 => (1_u128 << sectors) - 1,
            _ => u128::MAX,
        };
        bits(range.end.div_ceil(SECTOR as u64)) & !bits(range.start / SECTOR as u64)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    durable: BTreeMap<String, Id>,
    pub(super) names: BTreeMap<String, Id>,
    /// Changes since the last sync, by name: what each one left there.
    pub(super) pending: BTreeMap<String, Vec<Option<Id>>>,
}

impl Folder {
    fn set(&mut self, name: &str, id: Option<Id>) {
        match id {
            Some(id) => drop(self.names.insert(name.to_owned(), id)),
            None => drop(self.names.remove(name)),
        }
        self.pending.entry(name.to_owned()).or_default().push(id);
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.names);
        self.pending.clear();
    }

    /// The folder after a power loss: after how many of its changes each name stands.
    pub(super) fn after(&self, options: &BTreeMap<String, usize>) -> Self {
        let mut names = self.durable.clone();
        for (name, option) in options.iter().filter(|(_, option)| **option > 0) {
            match self.pending[name][option - 1] {
                Some(id) => drop(names.insert(name.clone(), id)),
                None => drop(names.remove(name)),
            }
        }
        Self { durable: names.clone(), names, pending: BTreeMap::new() }
    }

    /// Everything that may be in it after a power loss.
    pub(super) fn possible(&self) -> impl Iterator<Item = Id> + '_ {
        self.durable.values().copied().chain(self.pending.values().flatten().filter_map(|id| *id))
    }
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(FileNode),
    Folder(Folder),
}

/// All files and folders.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<Id, Arc<Node>>,
    next: Id,
    /// Stands for the time of a change.
    time: u64,
}

pub(super) const ROOT: Id = 0;

impl Default for State {
    fn default() -> Self {
        let nodes = BTreeMap::from([(ROOT, Arc::new(Node::Folder(Folder::default())))]);
        Self { nodes, next: ROOT + 1, time: 1_000_000 }
    }
}

impl State {
    pub(super) fn file(&self, id: Id) -> &FileNode {
        match &*self.nodes[&id] {
            Node::File(file) => file,
            Node::Folder(_) => unreachable!("a handle is one of a file"),
        }
    }

    fn file_mut(&mut self, id: Id) -> &mut FileNode {
        match Arc::make_mut(self.nodes.get_mut(&id).expect("a node stays")) {
            Node::File(file) => file,
            Node::Folder(_) => unreachable!("a handle is one of a file"),
        }
    }

    fn folder(&self, id: Id) -> io::Result<&Folder> {
        match &*self.nodes[&id] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn folder_mut(&mut self, id: Id) -> io::Result<&mut Folder> {
        match Arc::make_mut(self.nodes.get_mut(&id).expect("a node stays")) {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Id> {
        let mut id = ROOT;
        for name in names(path) {
            id = *self.folder(id)?.names.get(name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(id)
    }

    /// The folder that has a path's last name, and that name.
    fn place<'a>(&self, path: &'a Path) -> io::Result<(Id, &'a str)> {
        let name = names(path).last().ok_or(ErrorKind::InvalidInput)?;
        let folder = self.find(path.parent().ok_or(ErrorKind::InvalidInput)?)?;
        self.folder(folder)?;
        Ok((folder, name))
    }

    fn add(&mut self, node: Node) -> Id {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, Arc::new(node));
        id
    }

    fn tick(&mut self) -> u64 {
        self.time += 1_000;
        self.time
    }

    pub(super) fn open_file(&self, path: &Path) -> io::Result<Id> {
        let id = self.find(path)?;
        if self.folder(id).is_ok() { Err(ErrorKind::IsADirectory.into()) } else { Ok(id) }
    }

    /// Makes a file, or empties the one that is there.
    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Id> {
        if let Ok(id) = self.open_file(path) {
            self.set_len(id, 0);
            return Ok(id);
        }
        let (folder, name) = self.place(path)?;
        if self.folder(folder)?.names.contains_key(name) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let modified = self.tick();
        let id = self.add(Node::File(FileNode { modified, ..FileNode::default() }));
        self.folder_mut(folder)?.set(name, Some(id));
        Ok(id)
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        let mut id = ROOT;
        for name in names(dir) {
            id = match self.folder(id)?.names.get(name) {
                Some(id) => *id,
                None => {
                    let made = self.add(Node::Folder(Folder::default()));
                    self.folder_mut(id)?.set(name, Some(made));
                    made
                }
            };
        }
        self.folder(id).map(drop)
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        let id = self.find(dir)?;
        self.folder_mut(id).map(Folder::sync)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.open_file(from)?;
        let ((from_dir, from), (to_dir, to)) = (self.place(from)?, self.place(to)?);
        self.folder_mut(to_dir)?.set(to, Some(id));
        self.folder_mut(from_dir)?.set(from, None);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.open_file(path)?;
        let (folder, name) = self.place(path)?;
        self.folder_mut(folder)?.set(name, None);
        Ok(())
    }

    pub(super) fn names(&self, dir: &Path) -> io::Result<Vec<(String, FileInfo)>> {
        let folder = self.folder(self.find(dir)?)?;
        Ok(folder.names.iter().map(|(name, id)| (name.clone(), self.info(*id))).collect())
    }

    pub(super) fn info(&self, id: Id) -> FileInfo {
        match &*self.nodes[&id] {
            Node::File(file) => FileInfo { bytes: file.len(), modified_ns: file.modified, is_dir: false },
            Node::Folder(_) => FileInfo { bytes: 4096, modified_ns: 0, is_dir: true },
        }
    }

    pub(super) fn set_len(&mut self, id: Id, len: u64) {
        let modified = self.tick();
        let file = self.file_mut(id);
        file.set_len(len);
        file.modified = modified;
    }

    pub(super) fn allocate(&mut self, id: Id, range: &Range<u64>) {
        self.file_mut(id).blocks |= FileNode::blocks_of(range);
    }

    /// Returns whether all of the range had blocks.
    pub(super) fn write(&mut self, id: Id, position: u64, bytes: &[u8], mapped: bool) -> bool {
        let modified = self.tick();
        let file = self.file_mut(id);
        file.write(position, bytes, mapped);
        file.modified = modified;
        let blocks = FileNode::blocks_of(&(position..position + bytes.len() as u64));
        let had = file.blocks & blocks == blocks;
        file.blocks |= blocks;
        had
    }

    pub(super) fn sync(&mut self, id: Id, range: Range<u64>) {
        self.file_mut(id).sync(range);
    }

    pub(super) fn freeze(&mut self, id: Id, range: Range<u64>) {
        self.file_mut(id).freeze(range);
    }

    /// A number for all that processes see: names, lengths and bytes; not times, and not the name at the top.
    pub(crate) fn hash(&self) -> u128 {
        let mut hash = Hash(0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93);
        let Ok(top) = self.folder(ROOT) else { unreachable!("the root is a folder") };
        top.names.values().for_each(|id| self.hash_node(*id, &mut hash));
        u128::from(hash.0) << 64 | u128::from(hash.1)
    }

    fn hash_node(&self, id: Id, hash: &mut Hash) {
        match &*self.nodes[&id] {
            Node::Folder(folder) => {
                hash.number(folder.names.len() as u64);
                for (name, id) in &folder.names {
                    hash.bytes(name.as_bytes());
                    self.hash_node(*id, hash);
                }
            }
            Node::File(file) => {
                hash.number(1 << 32 | file.len());
                let seen;
                let bytes = if file.is_settled() {
                    &file.durable
                } else {
                    seen = file.seen();
                    &seen
                };
                for (sector, bytes) in bytes.chunks(SECTOR).enumerate().filter(|(_, bytes)| **bytes != ZEROS) {
                    hash.number(sector as u64);
                    hash.bytes(bytes);
                }
            }
        }
    }
}

/// Two lanes of a multiplying hash.
struct Hash(u64, u64);

impl Hash {
    fn number(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0xFF51_AFD7_ED55_8CCD).rotate_left(29);
        self.1 = (self.1 ^ number).wrapping_mul(0xC4CE_B9FE_1A85_EC53).rotate_left(31);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.number(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.number(u64::from(*byte)));
    }
}

/// The names of a path, the root left out.
fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}
