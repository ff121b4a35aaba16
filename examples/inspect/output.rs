//! Standard output, as rows for people or as JSON lines.

use std::io::{self, BufWriter, StdoutLock, Write};

use mqlog::{MessageView, QueueItem, VerifyReport};

use crate::json::{self, Object};
use crate::table;

/// Where the answer goes.
pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    /// Did the rows get their head already?
    has_head: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), json, has_head: false }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn object(&mut self, object: &Object) -> io::Result<()> {
        writeln!(self.out, "{object}")
    }

    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// A record among others.
    pub(crate) fn record(&mut self, view: &MessageView) -> io::Result<()> {
        if self.json {
            return self.object(&json::record(view));
        }
        self.row(table::RECORD_HEAD, &table::record(view))
    }

    /// A record alone.
    pub(crate) fn message(&mut self, view: &MessageView) -> io::Result<()> {
        if self.json { self.object(&json::record(view)) } else { self.text(&table::message(view)) }
    }

    /// An entry of a queue.
    pub(crate) fn entry(&mut self, item: &QueueItem) -> io::Result<()> {
        if self.json {
            return self.object(&json::entry(item));
        }
        let row = format!(
            "{:>12}  {:>12}  {:>8}  {:>20}",
            item.queue_offset.get(),
            item.entry.log_offset,
            item.entry.record_bytes,
            item.entry.tags_code
        );
        self.row("queue offset    log offset     bytes             tags code", &row)
    }

    /// What `verify` found: each damage, then what was looked at.
    pub(crate) fn verification(&mut self, report: &VerifyReport) -> io::Result<()> {
        for damage in &report.damages {
            if self.json {
                self.object(&json::damage(damage))?;
            } else {
                writeln!(self.out, "{damage}")?;
            }
        }
        if self.json {
            let counts = Object::default()
                .field("records", report.records)
                .field("queue_entries", report.queue_entries)
                .field("index_entries", report.index_entries)
                .field("damages", report.damages.len());
            return self.object(&counts);
        }
        let verdict = match report.damages.len() {
            0 => "no damage".to_owned(),
            1 => "1 damaged place".to_owned(),
            count => format!("{count} damaged places"),
        };
        let VerifyReport { records, queue_entries, index_entries, .. } = report;
        writeln!(self.out, "{records} records, {queue_entries} queue entries, {index_entries} index entries: {verdict}")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn row(&mut self, head: &str, row: &str) -> io::Result<()> {
        if !self.has_head {
            self.has_head = true;
            writeln!(self.out, "{head}")?;
        }
        writeln!(self.out, "{row}")
    }
}
