//! What a put costs that does not wait for the disk, with bodies of 1 KiB, beside what the machine allows at best.
//!
//! | row | measures |
//! |---|---|
//! | `put by N` | [`MessageStore::put`] by as many threads, dispatched and flushed in the background |
//! | `limit L1` | clock, a record of the same bytes, CRC of the body, CRC of the record, and copying it into fresh pages of an allocated, mapped file, by one thread |
//! | `limit L2` | the same, while a helper prepares pages ahead |
//!
//! Files have 64 MiB. What lies between the batches (making and deleting files, a flush) is not timed, so these figures
//! are those of a burst: what lasts is bounded by the disk's throughput too, and is what `examples/load` measures.
//! Puts that wait for the disk are in `group_commit.rs`.
//!
//! [`MessageStore::put`]: mqlog::MessageStore::put

mod bench;
#[path = "limits/mod.rs"]
mod limits;

use criterion::{Criterion, criterion_group, criterion_main};
use mqlog::FlushPolicy;

use crate::bench::{BODY_BYTES, FILE_BYTES, Producers, folder, group};
use crate::limits::{Budget, FreshPages, Pages, Template, body};

criterion_group!(benches, append);
criterion_main!(benches);

fn append(criterion: &mut Criterion) {
    let folder = folder();
    let mut group = group(criterion, "append, async, 1 KiB");
    for producers in [1, 4, 16] {
        let path = folder.path().join(format!("store{producers}"));
        let store = Producers::open(&path, FlushPolicy::async_default(), producers);
        group.bench_function(format!("put by {producers}"), |bencher| {
            bencher.iter_custom(|count| store.put(count));
        });
        store.close();
    }
    let mut template = Template::new(&body(BODY_BYTES), false);
    for (pages, name) in [(Pages::Fresh, "limit L1: fresh pages"), (Pages::Ahead, "limit L2: pages prepared ahead")] {
        let limit = FreshPages::new(folder.path(), FILE_BYTES, pages);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                limit.run(&mut template, Budget::of_messages(count)).expect("the limit can be measured").took
            });
        });
    }
    group.finish();
}
