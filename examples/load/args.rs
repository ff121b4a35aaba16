//! The command line of `load`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits::{Budget, Order};

pub(crate) const USAGE: &str =
    "usage: load STORE [--producers N] [--body BYTES] [--flush async|sync] [--seconds S|--messages N]
            [--queues N] [--keys] [--read seq|random] [--limit] [--rocketmq-sizes] [--json]

  --producers N         threads that put (default 1)
  --body BYTES          length of every body (default 1024)
  --flush async|sync    put returns at once, or when the message is durable (default async)
  --seconds S           how long, fractions allowed (default 10)
  --messages N          how many, by all producers together
  --queues N            queues of the topic, each producer uses them in turn (default 1)
  --keys                one key a message, its number in hex
  --read seq|random     reads: what STORE has of the topic, or, if it has nothing, what was put first
  --limit               measures what the machine allows at best too, before and after
  --rocketmq-sizes      a new store gets files as large as a RocketMQ broker's
  --json                one JSON object on one line";

const MAX_PRODUCERS: u64 = 4096;
const MAX_QUEUES: u64 = 65_536;
const MAX_BODY_BYTES: u64 = 4 << 20;
const MAX_SECONDS: f64 = 1e6;

/// When to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    Async,
    Sync,
}

/// A whole command line.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) store: PathBuf,
    pub(crate) producers: u64,
    pub(crate) body_bytes: usize,
    pub(crate) flush: Flush,
    seconds: Option<Duration>,
    messages: Option<u64>,
    pub(crate) queues: i32,
    pub(crate) keys: bool,
    pub(crate) read: Option<Order>,
    pub(crate) limit: bool,
    pub(crate) rocketmq_sizes: bool,
    pub(crate) json: bool,
}

impl Args {
    /// Reads a command line; `Ok(None)` when it asks for help.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let mut parsed = Self {
            store: PathBuf::new(),
            producers: 1,
            body_bytes: 1024,
            flush: Flush::Async,
            seconds: None,
            messages: None,
            queues: 1,
            keys: false,
            read: None,
            limit: false,
            rocketmq_sizes: false,
            json: false,
        };
        let mut stores = Vec::new();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--help" | "-h") => return Ok(None),
                Some("--keys") => parsed.keys = true,
                Some("--limit") => parsed.limit = true,
                Some("--rocketmq-sizes") => parsed.rocketmq_sizes = true,
                Some("--json") => parsed.json = true,
                Some("--") => stores.extend(arguments.by_ref()),
                Some(name) if name.starts_with('-') => parsed.set(name, &mut arguments)?,
                _ => stores.push(argument),
            }
        }
        let mut stores = stores.into_iter();
        parsed.store = stores.next().ok_or("STORE is missing")?.into();
        if let Some(more) = stores.next() {
            return Err(format!("what is {}?", more.display()));
        }
        if parsed.seconds.is_some() && parsed.messages.is_some() {
            return Err("--seconds and --messages exclude each other".to_owned());
        }
        Ok(Some(parsed))
    }

    /// How long the run is.
    pub(crate) fn budget(&self) -> Budget {
        match (self.messages, self.seconds) {
            (Some(messages), _) => Budget::of_messages(messages),
            (None, seconds) => Budget { messages: u64::MAX, time: seconds.unwrap_or(Duration::from_secs(10)) },
        }
    }

    fn set(&mut self, name: &str, arguments: &mut impl Iterator<Item = OsString>) -> Result<(), String> {
        let known = ["--producers", "--body", "--flush", "--seconds", "--messages", "--queues", "--read"];
        if !known.contains(&name) {
            return Err(format!("there is no option {name}"));
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = || format!("{name} cannot be {}", value.display());
        let text = value.to_str().ok_or_else(wrong)?;
        let number = |least, most| match text.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("{}: it is a number from {least} to {most}", wrong())),
        };
        match (name, text) {
            ("--producers", _) => self.producers = number(1, MAX_PRODUCERS)?,
            ("--body", _) => self.body_bytes = number(0, MAX_BODY_BYTES)? as usize,
            ("--messages", _) => self.messages = Some(number(1, 1 << 40)?),
            ("--queues", _) => self.queues = number(1, MAX_QUEUES)? as i32,
            ("--seconds", _) => self.seconds = Some(seconds(text).ok_or_else(wrong)?),
            ("--flush", "async") => self.flush = Flush::Async,
            ("--flush", "sync") => self.flush = Flush::Sync,
            ("--read", "seq") => self.read = Some(Order::Sequence),
            ("--read", "random") => self.read = Some(Order::Random),
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= MAX_SECONDS)?;
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}
