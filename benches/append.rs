//! What a put costs with one producer and bodies of 1 KiB, each beside what the machine allows at best.
//!
//! | group | put | its limit |
//! |---|---|---|
//! | `async` | [`MessageStore::put`], flushed in the background | reading the clock, CRC of the body, CRC of the record, and copying it into fresh pages of an allocated, mapped file |
//! | `sync` | [`MessageStore::put`], durable when it returns | one write and one `fdatasync` of the same bytes, into blocks that were written once before |
//!
//! Files have 64 MiB; the sync store has filled its first one before it is measured. What lies between the batches (making and deleting files, in the async group a flush) is not
//! timed, so the figures of the async group are those of a burst: what lasts is bounded by the disk's throughput too.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use memmap2::{MmapMut, MmapOptions};
use mqlog::format::record::{RecordCrc, RecordFields, RecordView, SysFlag, Version, body_crc, place, seal};
use mqlog::{FlushPolicy, Message, MessageStore, StoreOptions};

const BODY_BYTES: usize = 1024;
const FILE_BYTES: u64 = 64 << 20;
const TOPIC: &str = "orders";

criterion_group!(benches, asynchronous, synchronous);
criterion_main!(benches);

fn asynchronous(criterion: &mut Criterion) {
    let folder = folder();
    let mut group = group(criterion, "async, 1 KiB, 1 producer");
    let (store, body) = (open(&folder.path().join("store"), FlushPolicy::async_default()), body());
    group.bench_function("put", |bencher| bencher.iter_custom(|count| put(&store, &body, count)));
    store.close().expect("the store closes");
    let mut limit = FreshPages::new(folder.path().join("limit"));
    group.bench_function("limit: clock, two CRCs, copy into fresh pages", |bencher| {
        bencher.iter_custom(|count| limit.copy(&body, count));
    });
    group.finish();
}

fn synchronous(criterion: &mut Criterion) {
    let folder = folder();
    let mut group = group(criterion, "sync, 1 KiB, 1 producer");
    let (store, body) = (open(&folder.path().join("store"), FlushPolicy::Sync), body());
    fill(&store, &body);
    group.bench_function("put", |bencher| bencher.iter_custom(|count| put(&store, &body, count)));
    store.close().expect("the store closes");
    let mut limit = WrittenBlocks::new(&folder.path().join("limit"));
    let record = record(&body);
    group.bench_function("limit: one write, one fdatasync", |bencher| bencher.iter(|| limit.write(&record)));
    group.finish();
}

fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group
}

/// A folder on the disk that the build is on: a temporary folder of the system may be memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch folder can be made")
}

fn body() -> Vec<u8> {
    (0..BODY_BYTES).map(|at| (at % 251) as u8).collect()
}

fn open(folder: &Path, policy: FlushPolicy) -> MessageStore {
    let options = StoreOptions::new(folder).log_file_bytes(FILE_BYTES).flush(policy);
    MessageStore::open(options).expect("a new store opens")
}

/// Puts `count` messages; after each file's worth the older files go.
fn put(store: &MessageStore, body: &[u8], count: u64) -> Duration {
    let batch = FILE_BYTES / record(body).len() as u64;
    let mut took = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let start = Instant::now();
        for _ in 0..left.min(batch) {
            store.put(Message::new(TOPIC).body(body)).expect("the message is stored");
        }
        took += start.elapsed();
        left -= left.min(batch);
        let end = store.flush().expect("the log is flushed");
        store.queue(TOPIC, 0).range().expect("the queue is there");
        store.delete_before(end).expect("old files go");
    }
    took
}

/// Fills a log file and a little of the next: the first one gets its blocks while it is used, the others ahead.
fn fill(store: &MessageStore, body: &[u8]) {
    let end = store.log_range().start + FILE_BYTES;
    while store.flush().expect("the log is flushed") <= end {
        for _ in 0..1000 {
            store.append(Message::new(TOPIC).body(body)).expect("the message is appended");
        }
    }
}

/// The record that a put of `body` makes.
fn record(body: &[u8]) -> Vec<u8> {
    let host = "127.0.0.1:10911".parse().expect("an address");
    let fields = RecordFields {
        version: Version::V1,
        queue_id: 0,
        flag: 0,
        queue_offset: 0,
        log_offset: 0,
        sys_flag: SysFlag(0),
        born_ms: 0,
        born_host: host,
        store_ms: 0,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        topic: TOPIC.as_bytes(),
        properties: b"",
    };
    let mut record = Vec::new();
    fields.encode(RecordCrc::On, &mut record);
    RecordView::decode(&record).expect("a whole record").verify().expect("a right record");
    record
}

/// A mapped file whose blocks are allocated and whose pages nobody has touched; a new one when it is full.
struct FreshPages {
    path: PathBuf,
    mapping: MmapMut,
    tail: usize,
    copied: u64,
}

impl FreshPages {
    fn new(path: PathBuf) -> Self {
        Self { mapping: Self::map(&path), path, tail: 0, copied: 0 }
    }

    fn map(path: &Path) -> MmapMut {
        let file = create(path);
        file.set_len(FILE_BYTES).expect("the file gets its length");
        #[cfg(target_os = "linux")]
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, FILE_BYTES).expect("there is room");
        // SAFETY: the file was just made, in a folder of this process alone, and nobody else opens or cuts it.
        unsafe { MmapOptions::new().map_mut(&file) }.expect("the file can be mapped")
    }

    fn copy(&mut self, body: &[u8], count: u64) -> Duration {
        let mut record = record(body);
        let mut took = Duration::ZERO;
        let mut left = count;
        while left > 0 {
            let fit = ((self.mapping.len() - self.tail) / record.len()) as u64;
            if fit == 0 {
                std::fs::remove_file(&self.path).expect("the full file goes");
                (self.mapping, self.tail) = (Self::map(&self.path), 0);
                continue;
            }
            let start = Instant::now();
            for _ in 0..left.min(fit) {
                std::hint::black_box(body_crc(std::hint::black_box(body)));
                place(&mut record, self.copied, self.tail as u64, now_ms());
                seal(&mut record);
                self.mapping[self.tail..][..record.len()].copy_from_slice(&record);
                (self.tail, self.copied) = (self.tail + record.len(), self.copied + 1);
            }
            took += start.elapsed();
            left -= left.min(fit);
        }
        took
    }
}

/// A file that was filled with zeros and synced, so that its blocks need no more bookkeeping; begun anew at its end.
struct WrittenBlocks {
    file: File,
    tail: u64,
}

impl WrittenBlocks {
    fn new(path: &Path) -> Self {
        let mut file = create(path);
        for _ in 0..FILE_BYTES >> 20 {
            file.write_all(&vec![0; 1 << 20]).expect("there is room");
        }
        file.sync_all().expect("the file is synced");
        file.rewind().expect("a file has a beginning");
        Self { file, tail: 0 }
    }

    fn write(&mut self, record: &[u8]) {
        let len = record.len() as u64;
        if self.tail + len > FILE_BYTES {
            self.tail = self.file.seek(SeekFrom::Start(0)).expect("a file has a beginning");
        }
        self.file.write_all(record).expect("the record is written");
        self.file.sync_data().expect("the record is synced");
        self.tail += len;
    }
}

fn create(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).expect("a file can be made")
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("the clock is not that late")
}
