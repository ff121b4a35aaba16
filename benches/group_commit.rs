//! What a put costs that is durable when it returns, with bodies of 1 KiB, beside what the disk allows at best.
//!
//! | row | measures |
//! |---|---|
//! | `put by N` | [`MessageStore::put`] with [`FlushPolicy::Sync`] by as many threads |
//! | `limit L3` | one `pwrite` and one `fdatasync` a record of the same bytes, into blocks that were written once before |
//! | `limit L4, by N` | the same in groups: who finds no leader leads, hands over, and wakes exactly who is done; a helper prepares the next file |
//!
//! Files have 64 MiB; the store has filled its first one before it is measured.
//!
//! [`MessageStore::put`]: mqlog::MessageStore::put

mod bench;
#[path = "limits/mod.rs"]
mod limits;

use criterion::{Criterion, criterion_group, criterion_main};
use mqlog::FlushPolicy;

use crate::bench::{BODY_BYTES, FILE_BYTES, Producers, folder, group};
use crate::limits::{Budget, GroupCommit, Prewritten, Template, body};

criterion_group!(benches, group_commit);
criterion_main!(benches);

fn group_commit(criterion: &mut Criterion) {
    let folder = folder();
    let mut group = group(criterion, "group commit, 1 KiB");
    let mut template = Template::new(&body(BODY_BYTES), false);
    for producers in [1, 4, 16, 64] {
        let path = folder.path().join(format!("store{producers}"));
        let store = Producers::open(&path, FlushPolicy::Sync, producers);
        store.fill_first_file();
        group.bench_function(format!("put by {producers}"), |bencher| {
            bencher.iter_custom(|count| store.put(count));
        });
        store.close();
        if producers == 1 {
            let mut limit = Prewritten::new(folder.path(), FILE_BYTES).expect("the limit's file can be made");
            group.bench_function("limit L3: one write, one fdatasync", |bencher| {
                bencher.iter_custom(|count| {
                    limit.run(&mut template, Budget::of_messages(count)).expect("the limit can be measured").took
                });
            });
        } else {
            let limit = GroupCommit::new(folder.path(), FILE_BYTES, producers).expect("its file can be made");
            group.bench_function(format!("limit L4, by {producers}"), |bencher| {
                bencher.iter_custom(|count| {
                    limit.run(&template, Budget::of_messages(count)).expect("the limit can be measured").took
                });
            });
        }
    }
    group.finish();
}
