//! The command line of `inspect`.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;

pub(crate) const USAGE: &str = "usage: inspect STORE [summary|log|queue TOPIC ID|msg ID|key TOPIC KEY|verify] [--json]
               [--from OFFSET] [-n COUNT] [--begin MS] [--end MS]

  summary             topics, queues, offsets, log range, sizes, damage (this is also what no command shows)
  log                 the records in log order; --from is a log offset
  queue TOPIC ID      the entries of a queue; --from is a queue offset
  msg ID              the record of an offset message id
  key TOPIC KEY       the records with a key, newest first
  verify              compares records, queues and index; exit status 1 if something is damaged

  --json              one JSON object a line
  -n COUNT            show at most COUNT (log, queue, key)
  --begin, --end MS   only what was stored in that time, both ends included (log, queue, key)
  --                  everything behind it is no option";

/// What to show.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Summary,
    Log,
    Queue { topic: String, queue_id: i32 },
    Message { id: String },
    Key { topic: String, key: String },
    Verify,
}

/// A whole command line.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) store: PathBuf,
    pub(crate) command: Command,
    pub(crate) json: bool,
    pub(crate) from: Option<u64>,
    pub(crate) count: Option<u64>,
    begin_ms: Option<i64>,
    end_ms: Option<i64>,
}

impl Args {
    /// Reads a command line; `Ok(None)` when it asks for help.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let mut parsed = Self {
            store: PathBuf::new(),
            command: Command::Summary,
            json: false,
            from: None,
            count: None,
            begin_ms: None,
            end_ms: None,
        };
        let mut words = Vec::new();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--help" | "-h") => return Ok(None),
                Some("--json") => parsed.json = true,
                Some("--from") => parsed.from = Some(number("--from", arguments.next())?),
                Some("-n") => parsed.count = Some(number("-n", arguments.next())?),
                Some("--begin") => parsed.begin_ms = Some(number("--begin", arguments.next())?),
                Some("--end") => parsed.end_ms = Some(number("--end", arguments.next())?),
                Some("--") => words.extend(arguments.by_ref()),
                Some(name) if name.starts_with('-') => return Err(format!("there is no option {name}")),
                _ => words.push(argument),
            }
        }
        let mut words = words.into_iter();
        parsed.store = words.next().ok_or("STORE is missing")?.into();
        parsed.command = command(words)?;
        parsed.check()?;
        Ok(Some(parsed))
    }

    /// The store times asked for.
    pub(crate) fn times(&self) -> RangeInclusive<i64> {
        self.begin_ms.unwrap_or(i64::MIN)..=self.end_ms.unwrap_or(i64::MAX)
    }

    /// Was a time asked for at all?
    pub(crate) fn has_times(&self) -> bool {
        self.begin_ms.is_some() || self.end_ms.is_some()
    }

    /// Refuses options that the command would not heed.
    fn check(&self) -> Result<(), String> {
        let (takes_from, takes_some) = match self.command {
            Command::Log | Command::Queue { .. } => (true, true),
            Command::Key { .. } => (false, true),
            Command::Summary | Command::Message { .. } | Command::Verify => (false, false),
        };
        let unheeded = [
            ("--from", self.from.is_some() && !takes_from),
            ("-n", self.count.is_some() && !takes_some),
            ("--begin and --end", self.has_times() && !takes_some),
        ];
        match unheeded.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(format!("{name} means nothing for this command")),
            None => Ok(()),
        }
    }
}

fn command(words: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let words: Result<Vec<String>, _> = words.map(OsString::into_string).collect();
    let words = words.map_err(|word| format!("{} is not UTF-8", word.display()))?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(match words[..] {
        [] | ["summary"] => Command::Summary,
        ["log"] => Command::Log,
        ["queue", topic, id] => {
            let queue_id = id.parse().map_err(|_| format!("{id} is not a queue id"))?;
            Command::Queue { topic: topic.to_owned(), queue_id }
        }
        ["msg", id] => Command::Message { id: id.to_owned() },
        ["key", topic, key] => Command::Key { topic: topic.to_owned(), key: key.to_owned() },
        ["verify"] => Command::Verify,
        [name @ ("summary" | "log" | "queue" | "msg" | "key" | "verify"), ..] => {
            return Err(format!("wrong number of arguments for {name}"));
        }
        [name, ..] => return Err(format!("there is no command {name}")),
    })
}

fn number<T: std::str::FromStr>(name: &str, value: Option<OsString>) -> Result<T, String> {
    let value = value.ok_or_else(|| format!("{name} needs a value"))?;
    let parsed = value.to_str().and_then(|value| value.parse().ok());
    parsed.ok_or_else(|| format!("{name} cannot be {}", value.display()))
}
