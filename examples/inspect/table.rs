//! Text for people: columns, times, bodies.

use std::fmt::Write;

use mqlog::MessageView;

use crate::json::hex;

/// How much of a body or a key stands in a row.
const PREVIEW: usize = 40;

/// Lays out rows in columns: `<` to the left, `>` to the right, each as wide as its widest cell.
pub(crate) fn lay_out(alignment: &str, rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let columns: Vec<(char, usize)> = alignment.chars().enumerate().map(|(at, side)| (side, width(at))).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, (side, width)) in row.iter().zip(&columns) {
            let padding = " ".repeat(width - cell.chars().count());
            match side {
                '>' => line.extend([padding.as_str(), cell.as_str(), "  "]),
                _ => line.extend([cell.as_str(), padding.as_str(), "  "]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The head of the rows of [`record`].
pub(crate) const RECORD_HEAD: &str =
    "  log offset     bytes  stored (UTC)              queue offset  topic/queue              tags, keys, body";

/// A record in one row. Columns have fixed widths, since a log is printed while it is read.
pub(crate) fn record(view: &MessageView) -> String {
    let queue = format!("{}/{}", shown(&view.topic()), view.queue_id());
    let mut row = format!(
        "{:>12}  {:>8}  {}  {:>12}  {queue:<23}",
        view.log_offset().get(),
        view.record_bytes(),
        utc(view.store_ms()),
        view.queue_offset().get(),
    );
    if let Some(tags) = view.tags() {
        let _ = write!(row, "  [{}]", shown(&tags));
    }
    let keys: Vec<String> = view.keys().map(|key| shown(&key)).collect();
    if !keys.is_empty() {
        let _ = write!(row, "  <{}>", shortened(&keys.join(" ")));
    }
    let _ = write!(row, "  {}", shortened(&body(view.body())));
    row
}

/// A record with all its fields, one a line.
pub(crate) fn message(view: &MessageView) -> String {
    let mut rows = vec![
        ("message id", view.message_id()),
        ("log offset", view.log_offset().to_string()),
        ("record bytes", format!("{} ({})", view.record_bytes(), crate::json::version(view))),
        ("topic", shown(&view.topic())),
        ("queue", view.queue_id().to_string()),
        ("queue offset", view.queue_offset().to_string()),
        ("born", format!("{} at {}", utc(view.born_ms()), view.born_host())),
        ("stored", format!("{} at {}", utc(view.store_ms()), view.store_host())),
        ("flag", view.flag().to_string()),
        ("sys flag", format!("{:#x}", view.sys_flag().0)),
        ("reconsumed", format!("{} times", view.reconsume_times())),
        ("prepared at", view.prepared_transaction_offset().to_string()),
        ("body crc", format!("{:#010x}", view.body_crc())),
    ];
    let text = |bytes: &[u8]| shown(&String::from_utf8_lossy(bytes));
    rows.extend(
        view.properties().iter().map(|(name, value)| ("property", format!("{} = {}", text(name), text(value)))),
    );
    rows.push(("body", format!("{} bytes: {}", view.body().len(), body(view.body()))));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    lay_out("<<", &rows)
}

/// A body as text where it is text, else as hex digits.
fn body(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => shown(text),
        Err(_) => format!("0x{}", hex(bytes)),
    }
}

/// Text without what would move the cursor of a terminal.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(PREVIEW) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A time in ms since 1970 as a date and a time of day.
pub(crate) fn utc(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}", of_day % 1_000)
}

/// The date of a day counted from 1970-01-01.
///
/// Years are counted from March, so that the leap day ends a year; 146,097 days are 400 years.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}
