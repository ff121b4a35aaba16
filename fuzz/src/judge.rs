//! What has to hold when a damaged store is opened.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use mqlog::format::names::parse_log_file_name;
use mqlog::format::record::RecordView;
use mqlog::{
    Error, FlushPolicy, GetLimits, LogOffset, Message, MessageStore, MessageView, QueueOffset, RecoveryMode, ScanItem,
    StoreOptions, TagFilter, TimeBound,
};

use super::common::{Content, fast_dir};
use super::damage::Damaged;
use super::input::Input;
use super::stores::{Base, Files, LOG_FILE_BYTES, options, read_files, write_files};

/// No opening of these stores takes a second; what takes this long would not end.
const MOST_TIME: Duration = Duration::from_secs(60);
/// More steps than any reader of these stores needs.
const MOST_STEPS: usize = 20_000;

/// How a store is opened and left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    recovery: RecoveryMode,
    read_only: bool,
    sync: bool,
    /// Opened a second time as a kill would have left it, not closed.
    killed: bool,
}

impl How {
    pub(crate) fn choose(input: &mut Input<'_>) -> Self {
        let choice = input.byte();
        let recovery = [RecoveryMode::Refuse, RecoveryMode::ReadOnly, RecoveryMode::Salvage][usize::from(choice % 3)];
        Self { recovery, read_only: choice & 0x30 == 0x30, sync: choice & 0x40 != 0, killed: choice & 0x80 != 0 }
    }

    fn options(self, root: &Path) -> StoreOptions {
        let flush = if self.sync { FlushPolicy::Sync } else { FlushPolicy::Manual };
        options(root).recovery(self.recovery).flush(flush)
    }
}

/// One damaged store, and what is known of the damage to its log.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    base: &'a Base,
    damaged: &'a Damaged,
    how: How,
    /// The first byte of the log that is not as it was.
    first_damage: Option<u64>,
}

/// A record that was shown: its log offset and its bytes.
type Shown = Vec<(u64, Vec<u8>)>;

impl<'a> Case<'a> {
    pub(crate) fn new(base: &'a Base, damaged: &'a Damaged, how: How) -> Self {
        Self { base, damaged, how, first_damage: first_damage(&base.files, &damaged.files) }
    }

    /// Opens the store and checks everything; tells whether it opened.
    pub(crate) fn judge(&self) -> bool {
        let begun = Instant::now();
        let dir = fast_dir();
        write_files(dir.path(), &self.damaged.files);
        let opened = MessageStore::open(self.how.options(dir.path()).read_only(self.how.read_only));
        let is_open = opened.is_ok();
        match opened {
            Ok(store) => self.opened(store, dir.path()),
            Err(error) => self.refused(&error, dir.path()),
        }
        assert!(begun.elapsed() < MOST_TIME, "it took {:?}", begun.elapsed());
        is_open
    }

    /// For whoever looks into a finding.
    fn show(&self, outcome: &str) {
        let Damaged { files, lied, forged, hidden, derived } = self.damaged;
        eprintln!("{:?}, lied {lied}, forged {forged}, hidden {hidden}, derived {derived}", self.how);
        let names: BTreeSet<&String> = self.base.files.keys().chain(files.keys()).collect();
        for name in names {
            let [old, new] = [&self.base.files, files].map(|files| files.get(name).map(|image| &image.bytes));
            if old != new {
                let same =
                    old.zip(new).map(|(old, new)| old.iter().zip(new).take_while(|(old, new)| old == new).count());
                eprintln!(
                    "  {name}: {:?} bytes, now {:?}, the first {same:?} equal",
                    old.map(Vec::len),
                    new.map(Vec::len)
                );
            }
        }
        eprintln!("first damage {:?}, {outcome}", self.first_damage);
    }

    fn refused(&self, error: &Error, root: &Path) {
        if std::env::var_os("MQLOG_FUZZ_SHOW").is_some() {
            self.show(&error.to_string());
        }
        let is_corrupt = matches!(error, Error::Corrupt(_));
        let is_refused = self.how.recovery == RecoveryMode::Refuse || self.how.read_only;
        if is_corrupt && is_refused {
            self.assert_unchanged(root);
        } else if is_corrupt {
            // A file so far behind the others that nothing can stand in for what is missing.
            assert!(self.damaged.lied || self.has_more_files(), "{error}");
        }
        if !self.damaged.lied {
            assert!(is_corrupt, "{error}");
            assert!(self.first_damage.is_some(), "the log is as it was: {error}");
        }
    }

    fn assert_unchanged(&self, root: &Path) {
        let mut now = read_files(root);
        if !self.how.read_only && !self.damaged.files.contains_key("lock") {
            // Without it nobody could be kept out.
            now.remove("lock");
        }
        let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&now), names(&self.damaged.files));
        for (name, image) in &self.damaged.files {
            assert!(image.bytes == now[name].bytes, "{name} was changed");
        }
    }

    fn opened(&self, store: MessageStore, root: &Path) {
        let shown = scan(&store);
        if std::env::var_os("MQLOG_FUZZ_SHOW").is_some() {
            self.show(&format!("{:#?}", store.recovery_report()));
        }
        self.check_log(&shown);
        self.check_queues(&store, &shown);
        self.check_keys(&store, &shown);
        let verified = store.verify();
        assert!(verified.is_ok() || self.damaged.lied, "{verified:?}");
        if self.is_whole() {
            self.check_content(&store);
        }
        if self.how.read_only {
            let refused = store.put(Message::new("orders"));
            assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
            drop(store);
            self.assert_unchanged(root);
            return;
        }
        match store.put(Message::new("after").body(b"first")) {
            Err(Error::ReadOnly) => {
                assert_eq!(self.how.recovery, RecoveryMode::ReadOnly);
                assert!(self.damaged.lied || self.first_damage.is_some());
                drop(store);
                self.assert_unchanged(root);
            }
            put => {
                put.unwrap();
                self.go_on(store, root);
            }
        }
    }

    /// Every record that is shown stands whole in the files; all that must be there is shown.
    fn check_log(&self, shown: &Shown) {
        for (at, bytes) in shown {
            assert_eq!(
                self.stored(*at, bytes.len()).as_ref(),
                Some(bytes),
                "a record at {at} that is not in the files"
            );
            let record = RecordView::decode(bytes).unwrap();
            assert_eq!((record.log_offset(), record.record_bytes() as usize), (*at, bytes.len()));
            record.verify().unwrap();
        }
        assert!(shown.windows(2).all(|pair| pair[0].0 + pair[0].1.len() as u64 <= pair[1].0));
        if self.damaged.lied {
            return;
        }
        let below = self.first_damage.unwrap_or(u64::MAX);
        let salvaged = self.how.read_only || self.how.recovery != RecoveryMode::Refuse;
        for record in &self.base.content.records {
            let (at, bytes) = record;
            let is_below = at + bytes.len() as u64 <= below;
            let is_whole = self.stored(*at, bytes.len()).as_ref() == Some(bytes);
            if is_below
                || (salvaged && is_whole && self.base.is_closed && !self.damaged.forged && self.knows_watermark())
            {
                assert!(shown.contains(record), "the record at {at} is missing; the first damage is at {below}");
            }
        }
    }

    /// Were mqlog's own word on the log, and the list of its files, left alone?
    fn knows_watermark(&self) -> bool {
        let is_log = |name: &&String| name.starts_with("commitlog/");
        let (base, now) = (self.base.files.keys().filter(is_log), self.damaged.files.keys().filter(is_log));
        ["lock", "mqlog/watermark", "mqlog/format"].iter().all(|name| self.is_same(name)) && base.eq(now)
    }

    fn is_same(&self, name: &str) -> bool {
        self.base.files.get(name) == self.damaged.files.get(name)
    }

    fn has_more_files(&self) -> bool {
        self.damaged.files.keys().any(|name| name.starts_with("commitlog/") && !self.base.files.contains_key(name))
    }

    /// The bytes of the damaged log at an offset.
    ///
    /// A file that ends too early is filled up with zeros. A record that it cuts within its properties is whole with them
    /// for a store that cannot know that records have a CRC, as it is for RocketMQ.
    fn stored(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let files = self.damaged.files.iter().filter(|(name, _)| name.starts_with("commitlog/"));
        let files = files.filter_map(|(name, image)| Some((parse_log_file_name(&name[10..])?, image)));
        // Under another name a file is none of the log's.
        let places = files.filter(|(base, _)| base.is_multiple_of(LOG_FILE_BYTES) && *base <= at);
        let (base, image) = places.max_by_key(|(base, _)| *base)?;
        let mut bytes: Vec<u8> = image.bytes.get((at - base) as usize..)?.iter().take(len).copied().collect();
        if !self.is_same("mqlog/format") || !self.is_same("lock") {
            bytes.resize(len, 0);
        }
        (bytes.len() == len).then_some(bytes)
    }

    /// Is the log as it was, and is all that is wrong with queues and index seen at opening?
    fn is_whole(&self) -> bool {
        let Damaged { lied, hidden, derived, .. } = self.damaged;
        self.first_damage.is_none() && !lied && !hidden && (self.knows_end() || !derived)
    }

    /// Does an opening know that the store was closed? Else it takes files of the right length for those of a killed one.
    fn knows_end(&self) -> bool {
        self.base.is_closed && self.is_same("mqlog/format")
    }

    fn check_content(&self, store: &MessageStore) {
        let content = Content::of_log(store);
        assert!(content == self.base.content, "the content is not what it was");
        content.check(store);
    }

    fn check_queues(&self, store: &MessageStore, shown: &Shown) {
        let offsets: BTreeSet<u64> = shown.iter().map(|(at, _)| *at).collect();
        let queues = store.queues().unwrap();
        assert!(queues.windows(2).all(|pair| pair[0] < pair[1]));
        for (topic, id) in queues {
            let queue = store.queue(topic.as_str(), id);
            let mut steps = 0;
            for message in queue.iter_from(QueueOffset::ZERO) {
                steps += 1;
                assert!(steps < MOST_STEPS, "{topic}/{id} has no end");
                match message {
                    Ok(message) => {
                        self.check_shown(&message, &offsets);
                    }
                    Err(error) => assert!(self.is_damaged(), "{topic}/{id}: {error}"),
                }
            }
            self.get_all(store, &topic, id, &offsets);
            for bound in [TimeBound::Lower, TimeBound::Upper] {
                let found = queue.offset_by_time(1_800_000_000_020, bound);
                assert!(found.is_ok() || self.is_damaged(), "{found:?}");
            }
        }
    }

    fn get_all(&self, store: &MessageStore, topic: &str, id: i32, offsets: &BTreeSet<u64>) {
        let mut from = store.queue(topic, id).range().unwrap().start;
        // A queue with a gap is a long way for somebody who asks step by step.
        for _ in 0..100 {
            let got = store.get(topic, id, from, GetLimits::default(), &TagFilter::all());
            let next = match got {
                Ok(got) => {
                    got.messages.iter().for_each(|message| self.check_shown(message, offsets));
                    got.next
                }
                Err(error) => {
                    assert!(self.is_damaged(), "{topic}/{id}: {error}");
                    from + 1
                }
            };
            if next <= from {
                break;
            }
            from = next;
        }
    }

    /// What a queue shows stands whole in the files, and the scan of the log shows it too. Only a blank that somebody
    /// forged in the midst of a file hides from a scan what a queue still finds.
    fn check_shown(&self, message: &MessageView, offsets: &BTreeSet<u64>) {
        let at = message.log_offset().get();
        if self.is_odd() {
            assert_eq!(self.stored(at, message.bytes().len()), Some(message.bytes().to_vec()));
        } else {
            assert!(offsets.contains(&at), "a queue shows {at}, the log does not: {offsets:?}");
        }
    }

    /// A second opening shows what the first one did. What the first one took for damaged because something lied to it,
    /// the next one may see as what it is, a blank too, which ends the scan of a file: but every message can be read. A
    /// record that a lying watermark had cut is shown by neither, or is damaged in the one that knows where it was cut.
    fn agree(&self, first: &Shown, again: &MessageStore) {
        if self.is_odd() {
            for (at, bytes) in first {
                match again.read(LogOffset::new(*at)) {
                    Err(Error::Corrupt(_)) if self.damaged.lied => {}
                    read => assert_eq!(&read.unwrap().bytes()[..], bytes),
                }
            }
        } else {
            assert!(*first == scan(again), "the second opening does not agree with the first");
        }
    }

    /// Is something in the files that no damage can put there?
    fn is_odd(&self) -> bool {
        self.damaged.lied || self.damaged.forged
    }

    fn is_damaged(&self) -> bool {
        self.is_odd() || self.first_damage.is_some()
    }

    /// What is found by a key has it, and is found once.
    fn check_keys(&self, store: &MessageStore, shown: &Shown) {
        for (topic, key) in self.base.content.keys.keys().step_by(3) {
            let mut found = Vec::new();
            for message in store.query(topic, key, ..).unwrap() {
                assert!(found.len() <= shown.len());
                match message {
                    Ok(message) => {
                        let has = message.keys().any(|other| other == *key)
                            || message.unique_key().is_some_and(|id| id == *key);
                        assert!(has && message.topic() == *topic);
                        found.push(message.log_offset());
                    }
                    Err(error) => assert!(self.is_damaged(), "{topic} {key}: {error}"),
                }
            }
            let distinct: BTreeSet<_> = found.iter().collect();
            assert_eq!(distinct.len(), found.len(), "{topic} {key}: {found:?}");
        }
    }

    /// The store takes messages, shows them, and is the same after another opening.
    fn go_on(&self, store: MessageStore, root: &Path) {
        let mut puts = Vec::new();
        for (topic, id) in [("orders", 0), ("payments", 1), ("after", 3)] {
            match store.put(Message::new(topic).queue(id).key("after").body(b"after")) {
                Ok(put) => {
                    let message = store.read(put.log_offset).unwrap();
                    assert_eq!((message.body(), message.queue_offset()), (&b"after"[..], put.queue_offset));
                    puts.push((topic, id, put));
                }
                Err(error) => assert!(self.is_odd(), "{error}"),
            }
        }
        for (topic, id, put) in &puts {
            let read = store.queue(*topic, *id).iter_from(put.queue_offset).next();
            let found = store.query(topic, "after", ..).unwrap().next();
            if !self.is_odd() {
                assert_eq!(read.unwrap().unwrap().log_offset(), put.log_offset, "{topic}/{id}");
                assert_eq!(found.unwrap().unwrap().log_offset(), put.log_offset);
            }
        }
        let shown = scan(&store);
        let is_shown = |offset: LogOffset| shown.iter().any(|(at, _)| *at == offset.get());
        assert!(self.is_odd() || puts.iter().all(|(_, _, put)| is_shown(put.log_offset)));
        if self.how.killed {
            let copy = fast_dir();
            write_files(copy.path(), &read_files(root));
            match MessageStore::open(self.how.options(copy.path())) {
                Ok(again) => self.agree(&shown, &again),
                // Without a checkpoint that fits the log, the whole of it is looked at, and its damage is met.
                Err(Error::Corrupt(_)) if self.is_damaged() && self.how.recovery == RecoveryMode::Refuse => {}
                Err(error) => panic!("{error}"),
            }
            return;
        }
        store.close().unwrap();
        let again = MessageStore::open(self.how.options(root)).unwrap();
        let report = again.recovery_report();
        assert!(report.clean && report.torn.is_none() && !report.index_rebuilt, "{report:?}");
        // After a clean stop damage is seen that passed for the work of a killed session before.
        let may_repair = self.is_odd() || (self.damaged.derived && !self.knows_end());
        assert!(may_repair || report.queues_repaired.is_empty(), "{report:?}");
        self.agree(&shown, &again);
        again.put(Message::new("after").body(b"again")).unwrap();
        again.close().unwrap();
    }
}

fn scan(store: &MessageStore) -> Shown {
    let mut shown = Vec::new();
    let mut steps = 0;
    let mut end = LogOffset::ZERO;
    for item in store.scan(LogOffset::ZERO) {
        steps += 1;
        assert!(steps < MOST_STEPS, "the log has no end");
        match item.unwrap() {
            ScanItem::Record(message) => {
                assert!(message.log_offset() >= end);
                end = message.end();
                shown.push((message.log_offset().get(), message.bytes().to_vec()));
            }
            ScanItem::Blank(range) => assert!(range.start < range.end),
            ScanItem::Damaged(damage) => assert!(damage.range.start < damage.range.end, "{damage}"),
        }
    }
    shown
}

/// The first byte of the log that differs, a file that is there or not counting from its beginning.
fn first_damage(base: &Files, now: &Files) -> Option<u64> {
    let names: BTreeSet<&String> = base.keys().chain(now.keys()).collect();
    let differs = |name: &String| {
        let start = parse_log_file_name(name.strip_prefix("commitlog/")?)?;
        let (Some(one), Some(other)) = (base.get(name), now.get(name)) else { return Some(start) };
        let (one, other) = (&one.bytes, &other.bytes);
        let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
        (same < one.len() || same < other.len()).then_some(start + (same as u64).min(LOG_FILE_BYTES - 1))
    };
    names.into_iter().filter_map(differs).min()
}
