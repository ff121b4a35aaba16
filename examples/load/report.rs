//! What came out, for people or as JSON.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::args::{Args, Flush};
use crate::limit::Rates;
use crate::limits::Order;

/// Latencies are recorded up to this, in nanoseconds; what takes longer counts as this.
const MAX_NANOSECONDS: u64 = 3_600_000_000_000;
/// Digits of a latency that count.
const DIGITS: u8 = 3;

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) messages: u64,
    pub(crate) took: Duration,
    pub(crate) body_bytes: usize,
    /// In nanoseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) syncs: u64,
    pub(crate) limit: Option<Rates>,
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_NANOSECONDS, DIGITS).expect("the bounds are as they have to be")
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Report {
    fn rate(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64().max(1e-9)
    }

    fn mb_per_s(&self) -> f64 {
        self.rate() * self.body_bytes as f64 / 1e6
    }

    fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    fn max_us(&self) -> f64 {
        self.latency.max() as f64 / 1e3
    }

    /// One object on one line.
    pub(crate) fn json(&self) -> String {
        let limit = self.limit.map(|rates| rates.mean());
        let or_null = |value: Option<f64>, digits| value.map_or("null".to_owned(), |value| format!("{value:.digits$}"));
        let fields = [
            ("messages", self.messages.to_string()),
            ("seconds", format!("{:.9}", self.took.as_secs_f64())),
            ("msgs_per_s", format!("{:.1}", self.rate())),
            ("mb_per_s", format!("{:.3}", self.mb_per_s())),
            ("p50_us", format!("{:.3}", self.latency_us(0.5))),
            ("p90_us", format!("{:.3}", self.latency_us(0.9))),
            ("p99_us", format!("{:.3}", self.latency_us(0.99))),
            ("p999_us", format!("{:.3}", self.latency_us(0.999))),
            ("max_us", format!("{:.3}", self.max_us())),
            ("syncs", self.syncs.to_string()),
            ("limit_msgs_per_s", or_null(limit, 1)),
            ("ratio", or_null(limit.map(|limit| self.rate() / limit), 4)),
        ];
        let fields = fields.map(|(name, value)| format!("\"{name}\":{value}"));
        format!("{{{}}}", fields.join(","))
    }

    /// Lines for people, without the last line's end.
    pub(crate) fn text(&self, args: &Args) -> String {
        let mut text = self.head(args);
        let _ = write!(
            text,
            "\n  {} messages in {:.3} s: {:.0} messages/s, {:.1} MB/s of bodies, {} syncs of the log",
            self.messages,
            self.took.as_secs_f64(),
            self.rate(),
            self.mb_per_s(),
            self.syncs
        );
        let of_run = if args.read == Some(Order::Sequence) { ", mean of 32 each" } else { "" };
        let _ = write!(text, "\n  latency in microseconds{of_run}:");
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            let _ = write!(text, "  {name} {:.2}", self.latency_us(quantile));
        }
        let _ = write!(text, "  max {:.2}", self.max_us());
        if let Some(rates) = &self.limit {
            let restless = if rates.quiet { "" } else { "; the disk was not at rest" };
            let _ = write!(
                text,
                "\n  limit {}: {:.0} messages/s before, {:.0} after{restless}\n  of their mean this run has {:.1} %",
                rates.row.name(),
                rates.before,
                rates.after,
                100.0 * self.rate() / rates.mean()
            );
        }
        text
    }

    fn head(&self, args: &Args) -> String {
        let bytes = self.body_bytes;
        let keys = if args.keys { ", one key each" } else { "" };
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        match args.read {
            Some(Order::Sequence) => format!("read in sequence, bodies of {bytes} bytes"),
            Some(Order::Random) => format!("read at random, bodies of {bytes} bytes"),
            None => {
                let flush = if args.flush == Flush::Sync { "durable" } else { "async" };
                let (producers, queues) = (args.producers, args.queues.unsigned_abs().into());
                format!(
                    "put {flush}, {producers} producer{}, {queues} queue{}, bodies of {bytes} bytes{keys}",
                    plural(producers),
                    plural(queues)
                )
            }
        }
    }
}
