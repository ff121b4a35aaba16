//! What a record's bytes cost, in memory, beside what its checksums cost alone.
//!
//! | row | measures |
//! |---|---|
//! | `encode` | [`RecordFields::encode`]: all fields, the body copied, both CRCs |
//! | `limit: place, two CRCs` | one encoded record gets another place: four fields, the CRC of the body, the CRC of the record |
//! | `decode` | [`RecordView::decode`] and [`RecordView::verify`]: structure and both CRCs |
//! | `limit: one CRC` | the structure, and one CRC over the whole record |

#[path = "limits/mod.rs"]
mod limits;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mqlog::format::record::{RecordCrc, RecordFields, RecordView, SysFlag, Version};

use crate::limits::{TOPIC, Template, body, check};

criterion_group!(benches, codec);
criterion_main!(benches);

fn codec(criterion: &mut Criterion) {
    for bytes in [1024, 16 * 1024] {
        let mut group = criterion.benchmark_group(format!("codec, {bytes} bytes"));
        group.throughput(Throughput::Elements(1)).sample_size(20);
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        let body = body(bytes);
        let mut template = Template::new(&body, false);
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::from_parameter("encode"), |bencher| {
            let fields = fields(&body);
            bencher.iter(|| {
                out.clear();
                black_box(&fields).encode(RecordCrc::On, &mut out);
                black_box(&mut out);
            });
        });
        group.bench_function(BenchmarkId::from_parameter("limit: place, two CRCs"), |bencher| {
            let mut number = 0;
            bencher.iter(|| {
                number += 1;
                black_box(template.make_at(number, number, 1_700_000_000_001));
            });
        });
        let record = template.make(1, 1).to_vec();
        group.bench_function(BenchmarkId::from_parameter("decode"), |bencher| {
            bencher
                .iter(|| RecordView::decode(black_box(&record)).and_then(|view| view.verify()).expect("it is right"));
        });
        group.bench_function(BenchmarkId::from_parameter("limit: one CRC"), |bencher| {
            bencher.iter(|| check(black_box(&record)).expect("it is right"));
        });
        group.finish();
    }
}

fn fields(body: &[u8]) -> RecordFields<'_> {
    let host = "127.0.0.1:10911".parse().expect("an address");
    RecordFields {
        version: Version::V1,
        queue_id: 0,
        flag: 0,
        queue_offset: 1,
        log_offset: 1,
        sys_flag: SysFlag(0),
        born_ms: 1_700_000_000_000,
        born_host: host,
        store_ms: 1_700_000_000_001,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        topic: TOPIC.as_bytes(),
        properties: b"",
    }
}
