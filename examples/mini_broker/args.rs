//! The command line.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use mqlog::FlushPolicy;

pub(crate) const USAGE: &str =
    "usage: mini_broker [--store DIR] [--namesrv ADDR] [--broker ADDR] [--advertise HOST:PORT] [--flush sync|async]
                   [--threads N] [--max-connections N] [--max-frame-bytes N] [--max-held N] [--max-held-each N]
                   [--max-queued-bytes N] [--max-all-queued-bytes N] [--max-unfinished-bytes N]
                   [--max-topics N] [--max-offsets N] [--max-subscription-bytes N] [--max-consumer-bytes N]

  --store DIR                where messages, topics and offsets are kept; default mini_broker.store
  --namesrv ADDR             where clients ask for routes; default 127.0.0.1:9876
  --broker ADDR              where clients send and consume; default 127.0.0.1:10911
  --advertise HOST:PORT      what routes name, when clients reach the broker by another address
  --flush sync|async         answer a send when it is on disk, or at once (the default)
  --threads N                event loops; default one for each core, at most 4
  --max-connections N        default 4096, or what the limit of open files leaves beside the store's
  --max-frame-bytes N        the longest frame that is taken; default 16777216
  --max-held N               pulls that wait for a message, in all; default 16384
  --max-held-each N          of one connection; default 1024
  --max-queued-bytes N       answers that wait for a slow reader, of one connection; above it nothing more is done for
                             the connection until it has read; default 8388608
  --max-all-queued-bytes N   of all connections; above half of it each gets one answer at a time, above it none of more
                             than 16384 bytes but code 2, SYSTEM_BUSY; default 268435456
  --max-unfinished-bytes N   frames that have not come as a whole, of all connections, beside 65536 of each; above it
                             the connection whose frame began first is closed; default 268435456
  --max-topics N             default 16384
  --max-offsets N            how far groups are, by topic, group and queue; default 1000000
  --max-subscription-bytes N the longest text that says which tags a consumer wants; default 4096
  --max-consumer-bytes N     names and subscriptions of all consumers that are there; default 67108864";

/// What nobody can exceed.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) max_connections: usize,
    pub(crate) max_frame_bytes: usize,
    pub(crate) max_held: usize,
    pub(crate) max_held_each: usize,
    pub(crate) max_queued_bytes: usize,
    pub(crate) max_all_queued_bytes: usize,
    pub(crate) max_unfinished_bytes: usize,
    pub(crate) max_topics: usize,
    pub(crate) max_offsets: usize,
    pub(crate) max_subscription_bytes: usize,
    pub(crate) max_consumer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_frame_bytes: 16 << 20,
            max_held: 16_384,
            max_held_each: 1024,
            max_queued_bytes: 8 << 20,
            max_all_queued_bytes: 256 << 20,
            max_unfinished_bytes: 256 << 20,
            max_topics: 16_384,
            max_offsets: 1_000_000,
            max_subscription_bytes: 4096,
            max_consumer_bytes: 64 << 20,
        }
    }
}

/// A whole command line.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) store: PathBuf,
    pub(crate) namesrv: SocketAddr,
    pub(crate) broker: SocketAddr,
    /// The text for routes, and the address for message ids.
    pub(crate) advertise: Option<(String, SocketAddr)>,
    pub(crate) flush: FlushPolicy,
    pub(crate) threads: usize,
    pub(crate) limits: Limits,
}

impl Args {
    /// Reads a command line; `Ok(None)` when it asks for help.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut args = Self {
            store: PathBuf::from("mini_broker.store"),
            namesrv: SocketAddr::from(([127, 0, 0, 1], 9876)),
            broker: SocketAddr::from(([127, 0, 0, 1], 10911)),
            advertise: None,
            flush: FlushPolicy::async_default(),
            threads: cores.clamp(1, 4),
            limits: Limits::default(),
        };
        while let Some(name) = arguments.next() {
            let name = name.into_string().map_err(|name| format!("what is {}?", name.display()))?;
            if matches!(name.as_str(), "--help" | "-h") {
                return Ok(None);
            }
            // The usage has every option.
            if !USAGE.contains(&format!("[{name} ")) {
                return Err(format!("there is no option {name}"));
            }
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            if name == "--store" {
                args.store = PathBuf::from(value);
                continue;
            }
            let value = value.into_string().map_err(|value| format!("{name} cannot be {}", value.display()))?;
            args.set(&name, &value)?;
        }
        if args.broker.ip().to_canonical().is_unspecified() && args.advertise.is_none() {
            return Err("--broker on all addresses needs --advertise: clients must be told one of them".to_owned());
        }
        Ok(Some(args))
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let limits = &mut self.limits;
        let number = match name {
            "--namesrv" => return address(name, value).map(|address| self.namesrv = address),
            "--broker" => return address(name, value).map(|address| self.broker = address),
            "--advertise" => {
                let address = address(name, value)?;
                if address.ip().to_canonical().is_unspecified() || address.port() == 0 {
                    return Err(format!("--advertise cannot be {value}: nobody can connect to that"));
                }
                self.advertise = Some((value.to_owned(), address));
                return Ok(());
            }
            "--flush" => {
                self.flush = match value {
                    "sync" => FlushPolicy::Sync,
                    "async" => FlushPolicy::async_default(),
                    _ => return Err(format!("--flush cannot be {value}")),
                };
                return Ok(());
            }
            "--threads" => &mut self.threads,
            "--max-connections" => &mut limits.max_connections,
            "--max-frame-bytes" => &mut limits.max_frame_bytes,
            "--max-held" => &mut limits.max_held,
            "--max-held-each" => &mut limits.max_held_each,
            "--max-queued-bytes" => &mut limits.max_queued_bytes,
            "--max-all-queued-bytes" => &mut limits.max_all_queued_bytes,
            "--max-unfinished-bytes" => &mut limits.max_unfinished_bytes,
            "--max-topics" => &mut limits.max_topics,
            "--max-offsets" => &mut limits.max_offsets,
            "--max-subscription-bytes" => &mut limits.max_subscription_bytes,
            "--max-consumer-bytes" => &mut limits.max_consumer_bytes,
            _ => return Err(format!("there is no option {name}")),
        };
        *number = value.parse().ok().filter(|&number| number > 0).ok_or_else(|| format!("{name} cannot be {value}"))?;
        Ok(())
    }
}

fn address(name: &str, value: &str) -> Result<SocketAddr, String> {
    let wrong = |reason: String| format!("{name} cannot be {value}: {reason}");
    let mut found = value.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("the name has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Args>, String> {
        Args::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn everything_has_a_default() {
        let args = parse("").unwrap().unwrap();
        assert_eq!(
            (args.namesrv.to_string(), args.broker.to_string()),
            ("127.0.0.1:9876".into(), "127.0.0.1:10911".into())
        );
        assert!(
            args.limits.max_connections >= 2000 && args.limits.max_held >= 4000 && args.limits.max_held_each >= 1000
        );
        assert!(parse("--help").unwrap().is_none());
    }

    #[test]
    fn options_are_read_and_wrong_ones_refused() {
        let args = parse("--flush sync --max-held 7 --advertise localhost:1 --broker 0.0.0.0:0").unwrap().unwrap();
        assert_eq!((args.flush, args.limits.max_held), (FlushPolicy::Sync, 7));
        assert_eq!(args.advertise.map(|(text, address)| (text, address.port())), Some(("localhost:1".to_owned(), 1)));
        for wrong in [
            "--flush",
            "--flush maybe",
            "--max-held 0",
            "--threads x",
            "--broker x",
            "--broker 0.0.0.0:1",
            "--what 1",
            "--advertise 0.0.0.0:10911",
            "--advertise 127.0.0.1:0",
            "--advertise [::ffff:0.0.0.0]:10911",
            "--broker [::ffff:0.0.0.0]:1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for unknown in ["--bogus", "x", "--flush=sync", "--max 1", "--store]"] {
            assert_eq!(parse(unknown).unwrap_err(), format!("there is no option {}", unknown.trim_end_matches(" 1")));
        }
    }
}
