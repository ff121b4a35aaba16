//! Reads messages as JSON lines from standard input, puts them into a store, and prints what came of each.
//!
//! ```text
//! import STORE [--flush sync|async] [--commit-log-file-bytes N] [--queue-file-entries N]
//!              [--index-slots N] [--index-entries N] [--record-crc on|off]
//! ```
//!
//! A line is an object, one message, or an array of them, a batch. Fields: `topic`, `queue_id`, `body` (text) or
//! `body_hex`, `tags`, `keys` (array), `properties` (object), `flag`, `sys_flag`, `born_ms`, `born_host`, `store_host`
//! (`"ip:port"`, IPv6 in brackets), `reconsume_times`, `prepared_transaction_offset`. Only `topic` is required. What
//! `inspect STORE log --json` prints is accepted too: the fields that the log decides are left out.
//!
//! As soon as a put returned, one line is printed: `log_offset`, `queue_offset`, `record_bytes`, `message_id`; for a
//! batch an array of these. The exit status is 0 when all input was put, 1 when a line or the store failed (nothing
//! behind that line is put, what was acknowledged stays), 2 when the command line is wrong.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use mqlog::format::record::SysFlag;
use mqlog::{Appended, FlushPolicy, Message, MessageStore, StoreOptions};
use serde_json::{Map, Value, json};

const USAGE: &str = "usage: import STORE [--flush sync|async] [--commit-log-file-bytes N] [--queue-file-entries N]
              [--index-slots N] [--index-entries N] [--record-crc on|off]";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        let _ = writeln!(io::stdout(), "{USAGE}");
        return ExitCode::SUCCESS;
    }
    let (status, message) = match store_options(arguments) {
        Err(wrong) => (2, format!("{wrong}\n{USAGE}")),
        Ok(options) => match import(options) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(failure) => (1, failure),
        },
    };
    // Not `eprintln!`: it panics when nobody reads standard error any more.
    let _ = writeln!(io::stderr(), "import: {message}");
    ExitCode::from(status)
}

/// Reads the command line.
fn store_options(arguments: Vec<OsString>) -> Result<StoreOptions, String> {
    let mut store = None;
    let mut settings = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some(name) if name.starts_with("--") => {
                let value = arguments.next().and_then(|value| value.into_string().ok());
                settings.push((name.to_owned(), value.ok_or(format!("{name} needs a value"))?));
            }
            _ if store.is_none() => store = Some(PathBuf::from(argument)),
            _ => return Err(format!("what is {}?", argument.display())),
        }
    }
    let options = StoreOptions::new(store.ok_or("STORE is missing")?);
    settings.iter().try_fold(options, |options, (name, value)| set(options, name, value))
}

fn set(options: StoreOptions, name: &str, value: &str) -> Result<StoreOptions, String> {
    let wrong = || format!("{name} cannot be {value}");
    let number = || value.parse::<u32>().map_err(|_| wrong());
    Ok(match (name, value) {
        ("--flush", "sync") => options.flush(FlushPolicy::Sync),
        ("--flush", "async") => options.flush(FlushPolicy::async_default()),
        ("--commit-log-file-bytes", _) => options.log_file_bytes(value.parse().map_err(|_| wrong())?),
        ("--queue-file-entries", _) => options.queue_file_entries(number()?),
        ("--index-slots", _) => options.index_slots(number()?),
        ("--index-entries", _) => options.index_entries(number()?),
        ("--record-crc", "on" | "off") => options.record_crc(value == "on"),
        ("--flush" | "--record-crc", _) => return Err(wrong()),
        _ => return Err(format!("there is no option {name}")),
    })
}

fn import(options: StoreOptions) -> Result<(), String> {
    let store = MessageStore::open(options).map_err(|error| error.to_string())?;
    let mut number = 0;
    let put = put_lines(&store, &mut number, io::stdin().lock(), io::stdout().lock());
    let closed = store.close().map_err(|error| format!("line {number}: closing the store after it: {error}"));
    put.and(closed)
}

/// Puts line after line; `last` is the number of the last one that was read.
fn put_lines(
    store: &MessageStore,
    last: &mut u64,
    mut input: impl BufRead,
    mut output: impl Write,
) -> Result<(), String> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let at_line = |problem: String| format!("line {number}: {problem}");
        let read = input.read_until(b'\n', &mut line).map_err(|error| at_line(error.to_string()))?;
        if read == 0 {
            break;
        }
        *last = number;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let acknowledged = put_line(store, &line).map_err(at_line)?;
        writeln!(output, "{acknowledged}")
            .and_then(|()| output.flush())
            .map_err(|error| at_line(format!("it was put, but the acknowledgement cannot be printed: {error}")))?;
    }
    Ok(())
}

fn put_line(store: &MessageStore, line: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice(line).map_err(|error| error.to_string())? {
        Value::Object(fields) => {
            let put = store.put(message(&fields)?).map_err(|error| error.to_string())?;
            Ok(acknowledgement(&put))
        }
        Value::Array(batch) if !batch.is_empty() => {
            let messages: Result<Vec<_>, _> = batch.iter().map(|item| message(object(item)?)).collect();
            let puts = store.put_batch(&messages?).map_err(|error| error.to_string())?;
            Ok(puts.iter().map(acknowledgement).collect())
        }
        _ => Err("neither an object nor an array with something in it".to_owned()),
    }
}

/// Says where a message is.
fn acknowledgement(put: &Appended) -> Value {
    json!({
        "log_offset": put.log_offset.get(),
        "queue_offset": put.queue_offset.get(),
        "record_bytes": put.record_bytes,
        "message_id": put.message_id(),
    })
}

fn object(value: &Value) -> Result<&Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{value} is not an object"))
}

/// Builds a message from its fields; a field that is `null` counts as left out.
fn message(fields: &Map<String, Value>) -> Result<Message<'_>, String> {
    if ["body", "body_hex"].iter().all(|name| fields.get(*name).is_some_and(|value| !value.is_null())) {
        return Err("body and body_hex exclude each other".to_owned());
    }
    let topic = fields.get("topic").ok_or("topic is missing")?;
    let message = Message::new(text(topic).map_err(|problem| format!("topic: {problem}"))?);
    let given = fields.iter().filter(|(_, value)| !value.is_null());
    given.into_iter().try_fold(message, |message, (name, value)| {
        with_field(message, name, value).map_err(|problem| format!("{name}: {problem}"))
    })
}

fn with_field<'a>(message: Message<'a>, name: &str, value: &'a Value) -> Result<Message<'a>, String> {
    Ok(match name {
        "topic" => message,
        "queue_id" => message.queue(small(value)?),
        "body" => message.body(text(value)?),
        "body_hex" => message.owned_body(bytes_of_hex(text(value)?)?),
        // RocketMQ reads an empty tag as none.
        "tags" if text(value)?.is_empty() => message,
        "tags" => message.tags(text(value)?),
        "keys" => {
            let keys = value.as_array().ok_or_else(|| format!("{value} is not an array"))?;
            keys.iter().try_fold(message, |message, key| Ok::<_, String>(message.key(text(key)?)))?
        }
        "properties" => object(value)?.iter().try_fold(message, |message, (name, value)| {
            let value = text(value).map_err(|problem| format!("{name}: {problem}"))?;
            Ok::<_, String>(message.property(name, value))
        })?,
        "flag" => message.flag(small(value)?),
        "sys_flag" => message.sys_flag(SysFlag(small(value)?)),
        "born_ms" => message.born_ms(number(value)?),
        "born_host" => message.born_host(host(value)?),
        "store_host" => message.store_host(host(value)?),
        "reconsume_times" => message.reconsume_times(small(value)?),
        "prepared_transaction_offset" => message.prepared_transaction_offset(number(value)?),
        "log_offset" | "record_bytes" | "magic" | "body_crc" | "queue_offset" | "store_ms" | "message_id" => message,
        _ => return Err("no such field".to_owned()),
    })
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{value} is not a string"))
}

fn number(value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("{value} is not a whole number of 64 bits"))
}

fn small(value: &Value) -> Result<i32, String> {
    number(value)?.try_into().map_err(|_| format!("{value} is not a whole number of 32 bits"))
}

fn host(value: &Value) -> Result<SocketAddr, String> {
    text(value)?.parse().map_err(|_| format!("{value} is not ip:port"))
}

fn bytes_of_hex(digits: &str) -> Result<Vec<u8>, String> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    pairs.map(byte).collect::<Option<_>>().ok_or_else(|| "not an even number of hex digits".to_owned())
}

fn digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
