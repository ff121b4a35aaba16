//! What opening a store costs, after a close and after kill -9.
//!
//! | row | measures |
//! |---|---|
//! | `after a close` | [`MessageStore::open`] of a store that was closed |
//! | `after kill -9` | the same of a store whose process was killed while it had just put 50,000 messages |
//! | `limit` | reading as many bytes as that opening says it scanned, with their CRCs, writing them back, one `fdatasync` |
//!
//! The log has 256 MiB, messages 1 KiB and a key each. `MQLOG_OPEN_GIB=4 cargo bench --bench open` takes a log of 4 GiB.
//! Each opening is of another kill: a process of its own opens the store, deletes the oldest log file, puts, and is killed.

mod bench;
#[path = "limits/mod.rs"]
mod limits;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use mqlog::{FlushPolicy, Message};

use crate::bench::{BODY_BYTES, FILE_BYTES, filled, folder, open};
use crate::limits::{Budget, KEY_BYTES, Rescan, TOPIC, Template, body, write_key};

/// Set for the process that is killed: the store's folder.
const KILLED: &str = "MQLOG_OPEN_KILLED";
const PUT_BEFORE_KILL: u64 = 50_000;

criterion_group!(benches, opening);

fn main() {
    if let Some(folder) = env::var_os(KILLED) {
        return put_and_wait_for_the_end(Path::new(&folder));
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}

fn opening(criterion: &mut Criterion) {
    let gib: u64 = env::var("MQLOG_OPEN_GIB").map_or(0, |gib| gib.parse().expect("MQLOG_OPEN_GIB is a number"));
    let log_bytes = if gib == 0 { 256 << 20 } else { gib << 30 };
    let folder = folder();
    let path = folder.path().join("store");
    let mut template = Template::new(&body(BODY_BYTES), true);
    filled(&path, log_bytes / template.record_bytes()).close().expect("the store closes");

    let mut group = criterion.benchmark_group(format!("open, {} MiB", log_bytes >> 20));
    // One opening a sample.
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(10));
    group.bench_function("after a close", |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| timed(&path).0).sum());
    });
    let mut scanned = 0;
    group.bench_function("after kill -9", |bencher| {
        bencher.iter_custom(|count| {
            let openings = (0..count).map(|_| {
                kill(&path);
                let (took, bytes) = timed(&path);
                scanned = bytes;
                took
            });
            openings.sum()
        });
    });
    // Nothing was killed if the command line names another row.
    if scanned > 0 {
        let mut limit = Rescan::new(folder.path(), &mut template, scanned).expect("the limit's file can be made");
        group.bench_function(format!("limit: read, check, write back, sync {} KiB", scanned >> 10), |bencher| {
            bencher.iter_custom(|count| limit.run(Budget::of_messages(count)).expect("every record is right").took);
        });
    }
    group.finish();
}

/// Opens the store and closes it again; returns how long the opening took, and how many bytes it scanned.
fn timed(path: &Path) -> (Duration, u64) {
    let start = Instant::now();
    let store = open(path, FlushPolicy::async_default());
    let took = start.elapsed();
    let scanned = store.recovery_report().scanned_bytes;
    store.close().expect("the store closes");
    (took, scanned)
}

/// Has another process put messages, and kills it as soon as it has.
fn kill(path: &Path) {
    let mut command = Command::new(env::current_exe().expect("the bench knows where it is"));
    let mut child = command.env(KILLED, path).stdout(Stdio::piped()).spawn().expect("the bench starts again");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("standard output is piped"));
    output.read_line(&mut line).expect("the process says when it has put");
    child.kill().expect("the process can be killed");
    child.wait().expect("the process ends");
    assert_eq!(line, "put\n", "the process did not fail");
}

fn put_and_wait_for_the_end(path: &Path) {
    let (store, body) = (open(path, FlushPolicy::async_default()), body(BODY_BYTES));
    // The log keeps its length: the messages take about one file.
    store.delete_before(store.log_range().start + FILE_BYTES).expect("the oldest file goes");
    let mut key = [0; KEY_BYTES];
    for number in 0..PUT_BEFORE_KILL {
        write_key(&mut key, number);
        let key = std::str::from_utf8(&key).expect("hex digits are text");
        store.put(Message::new(TOPIC).body(&body).key(key)).expect("the message is stored");
    }
    let mut out = std::io::stdout();
    writeln!(out, "put").and_then(|()| out.flush()).expect("the other process reads");
    std::thread::sleep(Duration::from_secs(60));
}
