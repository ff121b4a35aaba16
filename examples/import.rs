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
use std::fmt::{self, Formatter};
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use mqlog::format::record::SysFlag;
use mqlog::{Appended, Error, FlushPolicy, Message, MessageStore, StoreOptions};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

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
            Err(failure) => failure,
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
            // The usage has every option.
            Some(name) if name.starts_with("--") && !USAGE.contains(&format!("[{name} ")) => {
                return Err(format!("there is no option {name}"));
            }
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

fn import(options: StoreOptions) -> Result<(), (u8, String)> {
    let store = MessageStore::open(options).map_err(|error| match error {
        Error::InvalidOption { option: "log_file_bytes", reason } => {
            (2, format!("--commit-log-file-bytes: {reason}\n{USAGE}"))
        }
        Error::InvalidOption { option: "root", reason } => (2, format!("STORE: {reason}\n{USAGE}")),
        Error::InvalidOption { option, reason } => (2, format!("--{}: {reason}\n{USAGE}", option.replace('_', "-"))),
        error => (1, error.to_string()),
    })?;
    let mut number = 0;
    let put = put_lines(&store, &mut number, io::stdin().lock(), io::stdout().lock());
    let closed = store.close().map_err(|error| format!("line {number}: closing the store after it: {error}"));
    put.and(closed).map_err(|failure| (1, failure))
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
    if line.trim_ascii_start().first() == Some(&b'[') {
        let batch: Vec<Object> = parse(line)?;
        if batch.is_empty() {
            return Err("an empty batch".to_owned());
        }
        let messages: Vec<_> = batch.iter().map(|Object(input)| message(input)).collect::<Result<_, _>>()?;
        let puts = store.put_batch(&messages).map_err(|error| error.to_string())?;
        return Ok(puts.iter().map(acknowledgement).collect());
    }
    let input = parse(line)?;
    let put = store.put(message(&input)?).map_err(|error| error.to_string())?;
    Ok(acknowledgement(&put))
}

/// Reads a line as JSON. Its number is known better elsewhere: the error says only the column.
fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(line.trim_ascii_end());
    let parsed =
        serde_path_to_error::deserialize(&mut json).map_err(|error| (error.path().to_string(), error.into_inner()));
    let whole = parsed.and_then(|value| json.end().map(|()| value).map_err(|error| (".".to_owned(), error)));
    whole.map_err(|(field, error)| {
        let (text, column) = (error.to_string(), error.column());
        let problem = text.strip_suffix(&format!(" at line {} column {column}", error.line())).unwrap_or(&text);
        let field = if field == "." { String::new() } else { format!("{field}: ") };
        format!("column {column}: {field}{problem}")
    })
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

/// An input that is an object: serde would take an array of its values too.
struct Object(Input);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Input::deserialize(OnlyMap(from)).map(Self)
    }
}

struct OnlyMap<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for OnlyMap<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// What a line says of a message; a field that is `null` counts as left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    topic: String,
    queue_id: Option<i32>,
    body: Option<String>,
    body_hex: Option<String>,
    tags: Option<String>,
    keys: Option<Vec<String>>,
    properties: Option<Pairs>,
    flag: Option<i32>,
    sys_flag: Option<i32>,
    born_ms: Option<i64>,
    born_host: Option<SocketAddr>,
    store_host: Option<SocketAddr>,
    reconsume_times: Option<i32>,
    prepared_transaction_offset: Option<i64>,
    // What the log decides.
    #[serde(rename = "log_offset")]
    _log_offset: Option<IgnoredAny>,
    #[serde(rename = "record_bytes")]
    _record_bytes: Option<IgnoredAny>,
    #[serde(rename = "magic")]
    _magic: Option<IgnoredAny>,
    #[serde(rename = "body_crc")]
    _body_crc: Option<IgnoredAny>,
    #[serde(rename = "queue_offset")]
    _queue_offset: Option<IgnoredAny>,
    #[serde(rename = "store_ms")]
    _store_ms: Option<IgnoredAny>,
    #[serde(rename = "message_id")]
    _message_id: Option<IgnoredAny>,
}

/// An object of texts in its order, each name once.
#[derive(Debug, Default)]
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Pairs;

            fn expecting(&self, text: &mut Formatter<'_>) -> fmt::Result {
                text.write_str("an object of strings")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                let mut pairs = Pairs::default();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if pairs.has(&name) {
                        return Err(M::Error::custom(format!("duplicate property `{name}`")));
                    }
                    pairs.0.push((name, value));
                }
                Ok(pairs)
            }
        }
        from.deserialize_map(Texts)
    }
}

impl Pairs {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }
}

/// Builds a message from its fields.
fn message(input: &Input) -> Result<Message<'_>, String> {
    let pairs = |name| input.properties.as_ref().is_some_and(|pairs| pairs.has(name));
    let twice = [
        (input.body.is_some() && input.body_hex.is_some(), "body and body_hex"),
        (input.tags.is_some() && pairs("TAGS"), "tags and the property TAGS"),
        (input.keys.is_some() && pairs("KEYS"), "keys and the property KEYS"),
    ];
    if let Some((_, both)) = twice.into_iter().find(|(is_twice, _)| *is_twice) {
        return Err(format!("{both} exclude each other"));
    }
    let mut message = Message::new(&*input.topic)
        .queue(input.queue_id.unwrap_or_default())
        .flag(input.flag.unwrap_or_default())
        .sys_flag(SysFlag(input.sys_flag.unwrap_or_default()))
        .reconsume_times(input.reconsume_times.unwrap_or_default())
        .prepared_transaction_offset(input.prepared_transaction_offset.unwrap_or_default());
    if let Some(digits) = &input.body_hex {
        message = message.owned_body(bytes_of_hex(digits).map_err(|problem| format!("body_hex: {problem}"))?);
    }
    if let Some(body) = &input.body {
        message = message.body(body.as_bytes());
    }
    for (name, value) in input.properties.iter().flat_map(|pairs| &pairs.0) {
        message = message.property(name, value);
    }
    // RocketMQ reads an empty tag as none.
    if let Some(tags) = input.tags.as_ref().filter(|tags| !tags.is_empty()) {
        message = message.tags(tags);
    }
    message = message.keys(input.keys.iter().flatten().map(String::as_str));
    if let Some(born_ms) = input.born_ms {
        message = message.born_ms(born_ms);
    }
    if let Some(host) = input.born_host {
        message = message.born_host(stored("born_host", host)?);
    }
    if let Some(host) = input.store_host {
        message = message.store_host(stored("store_host", host)?);
    }
    Ok(message)
}

/// A record has no place for an IPv6 scope.
fn stored(field: &str, host: SocketAddr) -> Result<SocketAddr, String> {
    match host {
        SocketAddr::V6(host) if host.scope_id() != 0 => Err(format!("{field}: the scope of {host} cannot be stored")),
        _ => Ok(host),
    }
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
