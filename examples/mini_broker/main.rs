//! A small RocketMQ broker: name server and broker in one process, on a mqlog store. Unmodified RocketMQ clients send to
//! it and consume from it.
//!
//! ```text
//! mini_broker [--store DIR] [--namesrv ADDR] [--broker ADDR] [--advertise HOST:PORT] [--flush sync|async]
//! ```
//!
//! When both ports accept connections, one line is printed on standard output. The exit status is 0 after SIGINT or
//! SIGTERM and a clean stop, 1 when something failed, 2 when the command line is wrong.
//!
//! | file | holds |
//! |---|---|
//! | `main`, `args`, `system` | start and stop; the command line; signals and descriptors |
//! | `event_loop`, `home`, `connection`, `peer` | threads that serve connections; where word is left for them; one connection; where answers are left for it |
//! | `input_budget` | the memory of frames that have not come as a whole |
//! | `frame`, `request`, `answer`, `codes` | the protocol's bytes, in and out |
//! | `broker` | which request goes where; answers that wait for the disk |
//! | `topics`, `consumers`, `consumer_table` | routes and topics; what groups of consumers ask; who is in them |
//! | `offsets`, `ask_offsets` | how far groups are; what is asked about that |
//! | `send`, `appender`, `pull` | messages in; those that wait for the disk; messages out |
//! | `hold`, `hold_table` | pulls that wait for a message; which of them can go on |
//! | `config`, `saver` | RocketMQ's `config/*.json`, and the thread that writes them |
//!
//! Everything about messages (order, durability, files, filters, times) is done by the store.

pub(crate) mod answer;
pub(crate) mod appender;
pub(crate) mod args;
pub(crate) mod ask_offsets;
pub(crate) mod broker;
pub(crate) mod codes;
pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod consumer_table;
pub(crate) mod consumers;
pub(crate) mod event_loop;
pub(crate) mod frame;
pub(crate) mod hold;
pub(crate) mod hold_table;
pub(crate) mod home;
pub(crate) mod input_budget;
pub(crate) mod offsets;
pub(crate) mod peer;
pub(crate) mod pull;
pub(crate) mod request;
pub(crate) mod saver;
pub(crate) mod send;
pub(crate) mod system;
pub(crate) mod topics;

use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use mqlog::{MessageStore, StoreOptions};

use crate::appender::Appender;
use crate::args::{Args, USAGE};
use crate::broker::Broker;
use crate::config::Config;
use crate::event_loop::EventLoops;
use crate::hold::Holds;
use crate::offsets::Offsets;
use crate::peer::lock;
use crate::saver::{OFFSETS_FILE, Saver, TOPICS_FILE};
use crate::system::{StopSignal, listen, possible_connections, raise_descriptor_limit};
use crate::topics::Topics;

fn main() -> ExitCode {
    let args = match Args::parse(env::args_os().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            let _ = writeln!(io::stdout(), "{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            complain(&format!("{wrong}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(1)
        }
    }
}

/// Prints a message on standard error; not by `eprintln!`, which panics when nobody reads there any more.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "mini_broker: {message}");
}

/// Who does not take the first line in this time does not get it first.
const PRINT_TIME: Duration = Duration::from_secs(1);

/// Prints the first line. Nobody may be reading, and the pipe full: the broker serves all the same.
fn announce(line: String) {
    let (told, printed) = mpsc::channel();
    thread::spawn(move || {
        let mut out = io::stdout();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        let _ = told.send(());
    });
    let _ = printed.recv_timeout(PRINT_TIME);
}

fn run(args: Args) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    // From the first moment on a signal leads to a clean stop.
    let stop = StopSignal::new().map_err(text)?;
    raise_descriptor_limit(args.limits.max_connections);
    let listen_on = |address| listen(address).map_err(|error| format!("cannot listen on {address}: {error}"));
    let (namesrv, broker) = (listen_on(args.namesrv)?, listen_on(args.broker)?);
    let addresses = (namesrv.local_addr().map_err(text)?, broker.local_addr().map_err(text)?);
    let (broker_parts, config) = open(&args, addresses.1)?;
    let saver = Saver::start(&broker_parts, config).map_err(text)?;
    let holds = Holds::start(&broker_parts).map_err(text)?;
    let appender = Appender::start(&broker_parts).map_err(text)?;
    // What the first client brings about may be worth a word on standard error, which comes after the first line.
    let gate = Arc::new(Mutex::new(()));
    let closed = lock(&gate);
    let loops = EventLoops::start(&broker_parts, vec![namesrv, broker], args.threads, &gate).map_err(text)?;

    announce(format!("mini_broker is ready: name server {}, broker {}", addresses.0, addresses.1));
    drop(closed);
    let (most, wanted) = (broker_parts.limits.max_connections, args.limits.max_connections);
    if most < wanted {
        complain(&format!("the limit of open files allows {most} connections, not {wanted}"));
    }

    stop.wait();
    loops.drain();
    broker_parts.appender.end(appender);
    // What was appended becomes durable, and its sends are answered.
    let flushed = broker_parts.store.flush();
    broker_parts.holds.end(holds);
    broker_parts.saver.end(saver);
    loops.end();
    let closed = match Arc::try_unwrap(broker_parts) {
        Ok(broker) => broker.store.close(),
        // Somebody still reads; the store closes with the process.
        Err(_) => Ok(()),
    };
    flushed.map(drop).and(closed).map_err(|error| format!("closing the store: {error}"))
}

/// Opens the store and what belongs to it.
fn open(args: &Args, bound: SocketAddr) -> Result<(Arc<Broker>, Config), String> {
    let (advertised, host) = args.advertise.clone().unwrap_or_else(|| (bound.to_string(), bound));
    let holds = Arc::new(Holds::default());
    let told = Arc::clone(&holds);
    // RocketMQ's sizes, so that one of its brokers can take the folder over.
    let options = StoreOptions::rocketmq(&args.store)
        .flush(args.flush.clone())
        .store_host(host)
        .on_arrival(move |topic, queue_id| told.arrived(topic, queue_id));
    let store = MessageStore::open(options).map_err(|error| error.to_string())?;
    let config = Config::new(&args.store).map_err(|error| format!("{}: {error}", args.store.display()))?;
    let topics = Topics::new(args.limits.max_topics);
    let stored = store.queues().map_err(|error| error.to_string())?;
    topics.load(config.load(TOPICS_FILE)?.unwrap_or_default(), stored);
    let offsets = Offsets::new(config.load(OFFSETS_FILE)?.unwrap_or_default(), args.limits.max_offsets);
    let mut limits = args.limits.clone();
    limits.max_connections = limits.max_connections.min(possible_connections().unwrap_or(usize::MAX));
    Ok((Arc::new(Broker::new(store, (limits, args.flush.clone()), advertised, (topics, offsets), holds)), config))
}
