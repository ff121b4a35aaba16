//! What happens to a store's files, as an input asks for it.

use mqlog::format::record::{CrcProperty, RecordView, body_crc, encode_blank, seal};

use super::input::Input;
use super::stores::{Base, Files, Image, LOG_FILE_BYTES};

/// Damage is done in at most so many steps: more of it hides what each one does.
const MOST_STEPS: usize = 6;

/// A store's files after the damage, and what kind of damage it was.
#[derive(Debug, Clone)]
pub(crate) struct Damaged {
    pub(crate) files: Files,
    /// A file of mqlog's own says something wrong under a right checksum, which no damage does.
    pub(crate) lied: bool,
    /// A whole record stands in the log that nobody put there.
    pub(crate) forged: bool,
    /// A queue or index file was changed and kept its length and time.
    pub(crate) hidden: bool,
    /// A queue or index file was changed.
    pub(crate) derived: bool,
}

impl Damaged {
    pub(crate) fn new(base: &Base) -> Self {
        Self { files: base.files.clone(), lied: false, forged: false, hidden: false, derived: false }
    }

    /// Does everything that an input asks for.
    pub(crate) fn apply(base: &Base, input: &mut Input<'_>) -> Self {
        let mut damaged = Self::new(base);
        for _ in 0..MOST_STEPS {
            if input.is_empty() {
                break;
            }
            damaged.step(base, input);
        }
        damaged
    }

    fn step(&mut self, base: &Base, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=3 => self.change_bytes(input),
            4 => self.change_length(input),
            5 => self.remove(input),
            6 => self.swap(input),
            7 => self.duplicate(input),
            8 => self.bring_back(base, input),
            9 | 10 => self.rewrite_record(base, input),
            11 => self.copy_record(base, input),
            12 => self.blank_out(base, input),
            13 => self.lie_in_watermark(input),
            14 => self.lie_in_format(input),
            _ => self.lie_in_derived(input),
        }
    }

    /// A file's name: of the log, of queues and index, or of the rest.
    fn choose(&self, input: &mut Input<'_>) -> Option<String> {
        let kind = input.byte();
        let is_of = |name: &str| match kind % 3 {
            0 => name.starts_with("commitlog/"),
            1 => is_derived(name),
            _ => !name.starts_with("commitlog/") && !is_derived(name),
        };
        let names: Vec<&String> = self.files.keys().filter(|name| is_of(name)).collect();
        names.get(input.below(names.len())).map(|name| (*name).clone())
    }

    /// Changes a file's bytes with `change`; keeps its time if the input asks for it.
    fn change(&mut self, input: &mut Input<'_>, change: impl FnOnce(&mut Vec<u8>, &mut Input<'_>)) {
        let Some(name) = self.choose(input) else { return };
        let keep_time = input.byte().is_multiple_of(4);
        let mut bytes = self.files[&name].bytes.clone();
        change(&mut bytes, input);
        self.put(&name, bytes, keep_time);
    }

    pub(crate) fn put(&mut self, name: &str, bytes: Vec<u8>, keep_time: bool) {
        let old = self.files.get(name).cloned();
        let modified = old.as_ref().and_then(|old| old.modified).filter(|_| keep_time);
        if let Some(old) = old
            && is_derived(name)
            && old.bytes != bytes
        {
            self.derived = true;
            self.hidden |= modified.is_some() && old.bytes.len() == bytes.len();
        }
        self.derived |= is_derived(name);
        self.files.insert(name.to_owned(), Image { bytes, modified });
    }

    fn change_bytes(&mut self, input: &mut Input<'_>) {
        self.change(input, |bytes, input| {
            let at = input.below(bytes.len());
            let rest = &mut bytes[at..];
            match input.byte() % 4 {
                0 => rest.iter_mut().take(1).for_each(|byte| *byte ^= 1 << (input.byte() % 8)),
                1 => {
                    let count = usize::from(input.byte() % 17);
                    rest.iter_mut().zip(input.bytes(count)).for_each(|(byte, new)| *byte = *new);
                }
                2 => {
                    let end = rest.len().min(input.below(0x1_0000));
                    rest[..end].fill(0);
                }
                _ => {
                    // A number in its place, most often one of 4 or 8 bytes.
                    let width = if input.byte() & 1 == 0 { 4 } else { 8 };
                    let known = rest.iter().take(width).fold(0, |number, byte| number << 8 | u64::from(*byte));
                    let number = input.number(known).to_be_bytes();
                    rest.iter_mut().zip(&number[8 - width..]).for_each(|(byte, new)| *byte = *new);
                }
            }
        });
    }

    fn change_length(&mut self, input: &mut Input<'_>) {
        self.change(input, |bytes, input| {
            let len = bytes.len();
            match input.byte() % 4 {
                0 => bytes.clear(),
                1 => bytes.truncate(input.below(len)),
                2 => bytes.resize(len + input.below(6000), 0),
                _ => bytes.resize(len + input.below(300), input.byte()),
            }
        });
    }

    fn remove(&mut self, input: &mut Input<'_>) {
        let is_folder = input.byte().is_multiple_of(4);
        let Some(name) = self.choose(input) else { return };
        let folder = name.rsplit_once('/').map_or(name.as_str(), |(folder, _)| folder).to_owned();
        self.derived |= is_derived(&name);
        self.files.retain(|other, _| *other != name && !(is_folder && other.starts_with(&folder)));
    }

    fn swap(&mut self, input: &mut Input<'_>) {
        let (Some(one), Some(other)) = (self.choose(input), self.choose(input)) else { return };
        let (first, second) = (self.files[&one].bytes.clone(), self.files[&other].bytes.clone());
        self.lied |= [&one, &other].iter().any(|name| name.starts_with("mqlog/cut"));
        self.put(&one, second, false);
        self.put(&other, first, false);
    }

    /// A copy of a file under a name that does not exist yet, or over another file.
    fn duplicate(&mut self, input: &mut Input<'_>) {
        let Some(name) = self.choose(input) else { return };
        let Some((folder, own)) = name.rsplit_once('/') else { return };
        let known: u64 = own.parse().unwrap_or(0);
        let new = match input.byte() % 3 {
            0 => known.wrapping_add(LOG_FILE_BYTES * u64::from(input.byte() % 8)),
            1 => known.wrapping_add(160 * u64::from(input.byte())),
            _ => input.number(known),
        };
        let width = own.len();
        let (target, bytes) = (format!("{folder}/{new:0width$}"), self.files[&name].bytes.clone());
        self.put(&target, bytes, false);
    }

    /// A file as it was after an earlier session.
    fn bring_back(&mut self, base: &Base, input: &mut Input<'_>) {
        let Some(name) = self.choose(input) else { return };
        let Some(older) = base.older.get(&name) else { return };
        self.derived |= is_derived(&name);
        self.files.insert(name, older.clone());
    }

    /// Changes a field of a whole record and makes its checksums right.
    fn rewrite_record(&mut self, base: &Base, input: &mut Input<'_>) {
        let (at, record) = &base.content.records[input.below(base.content.records.len())];
        let mut bytes = record.clone();
        let view = RecordView::decode(record).unwrap();
        let body_at = view.body().as_ptr() as usize - record.as_ptr() as usize;
        let topic_at = view.topic_bytes().as_ptr() as usize - record.as_ptr() as usize;
        let properties_at = view.properties().as_bytes().as_ptr() as usize - record.as_ptr() as usize;
        // Length, magic, queue id, flag, queue offset, log offset, system flag, born time and host, store time and host,
        // reconsumed, prepared, lengths of body, topic, properties.
        let fields = [
            (0, 4),
            (4, 4),
            (12, 4),
            (16, 4),
            (20, 8),
            (28, 8),
            (36, 4),
            (40, 8),
            (48, 8),
            (56, 8),
            (64, 8),
            (72, 4),
            (76, 8),
            (84, 4),
            (topic_at - 1, 1),
            (properties_at - 2, 2),
        ];
        let choice = input.byte();
        if let Some((field, width)) = fields.get(usize::from(choice % 20)) {
            let known = bytes[*field..field + width].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            let number = input.number(known).to_be_bytes();
            bytes[*field..field + width].copy_from_slice(&number[8 - width..]);
        } else {
            let place = [body_at, topic_at, properties_at][usize::from(choice % 3)];
            let place = place + input.below(bytes.len() - place);
            bytes[place] = input.byte();
        }
        fix_checksums(&mut bytes);
        self.write_log(*at, &bytes);
        self.forged = true;
    }

    /// A whole record stands in another record's place, as if it belonged there.
    fn copy_record(&mut self, base: &Base, input: &mut Input<'_>) {
        let records = &base.content.records;
        let (to, from) = (input.below(records.len()), input.below(records.len()));
        let mut bytes = records[from].1.clone();
        if input.byte() & 1 == 0 {
            bytes[28..36].copy_from_slice(&records[to].0.to_be_bytes());
            fix_checksums(&mut bytes);
            self.forged = true;
        }
        self.write_log(records[to].0, &bytes);
    }

    /// An end-of-file blank stands where a record was.
    fn blank_out(&mut self, base: &Base, input: &mut Input<'_>) {
        let (at, _) = base.content.records[input.below(base.content.records.len())];
        let left = (LOG_FILE_BYTES - at % LOG_FILE_BYTES) as u32;
        let left = if input.byte() & 1 == 0 { left } else { (input.number(left.into()) as u32 & 0x7FFF_FFFF).max(8) };
        self.write_log(at, &encode_blank(left));
        // Whoever writes a blank says that the log goes on in the next file.
        self.forged = true;
    }

    fn write_log(&mut self, at: u64, bytes: &[u8]) {
        let name = format!("commitlog/{:020}", at / LOG_FILE_BYTES * LOG_FILE_BYTES);
        let Some(file) = self.files.get_mut(&name) else { return };
        let position = (at % LOG_FILE_BYTES) as usize;
        file.bytes.iter_mut().skip(position).zip(bytes).for_each(|(old, new)| *old = *new);
        file.modified = None;
    }

    fn lie_in_watermark(&mut self, input: &mut Input<'_>) {
        const NAME: &str = "mqlog/watermark";
        let Some(file) = self.files.get(NAME).filter(|file| file.bytes.len() == 8192) else { return };
        let mut bytes = file.bytes.clone();
        for _ in 0..=input.byte() % 3 {
            let slot = &mut bytes[usize::from(input.byte() & 1) * 4096..][..72];
            let field = 8 + usize::from(input.byte() % 7) * 8;
            let known = u64::from_be_bytes(*slot[field..].first_chunk().unwrap());
            slot[field..field + 8].copy_from_slice(&input.number(known).to_be_bytes());
            let crc = u64::from(crc32c::crc32c(&slot[..64]));
            slot[64..].copy_from_slice(&crc.to_be_bytes());
        }
        self.put(NAME, bytes, false);
        self.lied = true;
    }

    fn lie_in_format(&mut self, input: &mut Input<'_>) {
        const NAME: &str = "mqlog/format";
        let Some(text) = self.files.get(NAME).and_then(|file| String::from_utf8(file.bytes.clone()).ok()) else {
            return;
        };
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.truncate(8);
        let at = input.below(lines.len());
        if let Some(line) = lines.get_mut(at)
            && let Some((name, value)) = line.clone().split_once(' ')
        {
            *line = match (value.parse(), input.byte() % 4) {
                (Ok(known), 0..=2) => format!("{name} {}", input.number(known)),
                (Err(_), 0) => format!("{name} yes"),
                (_, 1) => format!("{name} {}", input.number(0)),
                _ => format!("{name} none"),
            };
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let crc = crc32c::crc32c(text.as_bytes());
        self.put(NAME, format!("{text}crc32c {crc:08x}\n").into_bytes(), false);
        self.lied = true;
    }

    /// Changes numbers of one frame and makes its checksum right.
    fn lie_in_derived(&mut self, input: &mut Input<'_>) {
        const NAME: &str = "mqlog/derived";
        let Some(file) = self.files.get(NAME) else { return };
        let mut bytes = file.bytes.clone();
        let frames: Vec<usize> =
            (0..bytes.len().saturating_sub(28)).filter(|at| bytes[*at..].starts_with(b"mqfr")).collect();
        let Some(at) = frames.get(input.below(frames.len())).copied() else { return };
        let frame = &mut bytes[at..];
        let payload = u64::from_be_bytes(*frame[4..].first_chunk().unwrap()) as usize;
        let Some(end) = payload.checked_add(20).filter(|end| end + 8 <= frame.len()) else { return };
        for _ in 0..=input.byte() % 3 {
            let place = 12 + input.below(end - 19);
            let known = u64::from_be_bytes(*frame[place..].first_chunk().unwrap());
            frame[place..place + 8].copy_from_slice(&input.number(known).to_be_bytes());
        }
        let crc = u64::from(crc32c::crc32c(&frame[..end]));
        frame[end..end + 8].copy_from_slice(&crc.to_be_bytes());
        self.put(NAME, bytes, false);
        self.lied = true;
    }
}

/// Is it a queue's file, or the index's?
fn is_derived(name: &str) -> bool {
    name.starts_with("consumequeue/") || name.starts_with("batchconsumequeue/") || name.starts_with("index/")
}

/// Makes the checksums of a record right, as far as it still is one.
fn fix_checksums(bytes: &mut [u8]) {
    let Ok(view) = RecordView::decode(bytes) else { return };
    let (crc, property) = (body_crc(view.body()), view.crc_property());
    let end = view.bytes().len();
    bytes[8..12].copy_from_slice(&crc.to_be_bytes());
    if property != CrcProperty::Absent {
        seal(&mut bytes[..end]);
    }
}
