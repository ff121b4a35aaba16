//! Sends messages to a running broker, mini_broker or RocketMQ's, with many in flight, and says how fast they were
//! acknowledged.
//!
//! ```text
//! broker_load HOST:PORT [--connections N] [--window N] [--body BYTES] [--messages N] [--seconds S]
//! ```
//!
//! The messages go to four queues of the topic `load`, which a message that does not count makes. The end has come when
//! so many are answered, or the time is over and all that were sent are answered.
//!
//! One JSON object on one line of standard output: `messages` (acknowledged), `refused`, `seconds`, `msgs_per_s`. The
//! exit status is 0 when every message was answered, 1 when not, 2 when the command line is wrong.

#[path = "../tests/common/pipeline.rs"]
mod pipeline;

use std::env;
use std::io::{self, Write};
use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use pipeline::Pipeline;

const USAGE: &str =
    "usage: broker_load HOST:PORT [--connections N] [--window N] [--body BYTES] [--messages N] [--seconds S]

  --connections N   default 4
  --window N        so many messages of a connection wait for their answers at most; default 64
  --body BYTES      default 1024
  --messages N      default 1000000
  --seconds S       nothing is sent after that time; default as long as it takes";

/// What is sent.
struct Load<'a> {
    pipeline: Pipeline<'a>,
    connections: u64,
    messages: u64,
    limit: Option<Duration>,
}

fn main() -> ExitCode {
    let load = match Load::parse(env::args().skip(1)) {
        Ok(load) => load,
        Err(wrong) => {
            let _ = writeln!(io::stderr(), "broker_load: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match load.run() {
        Ok(report) => {
            let _ = writeln!(io::stdout(), "{report}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(io::stderr(), "broker_load: {failure}");
            ExitCode::from(1)
        }
    }
}

impl Load<'_> {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let address = arguments.next().ok_or("which broker?")?;
        let found = address.to_socket_addrs().ok().and_then(|mut found| found.next());
        let address = found.ok_or_else(|| format!("there is no address {address}"))?;
        let pipeline = Pipeline { address, topic: "load", queues: 4, window: 64, body_bytes: 1024, until: None };
        let mut load = Self { pipeline, connections: 4, messages: 1_000_000, limit: None };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = value.parse().ok().filter(|&number: &u32| number > 0);
            let number = number.ok_or_else(|| format!("{name} cannot be {value}"))?;
            match name.as_str() {
                "--connections" => load.connections = number.into(),
                "--window" => load.pipeline.window = number.into(),
                "--body" => load.pipeline.body_bytes = number as usize,
                "--messages" => load.messages = number.into(),
                "--seconds" => load.limit = Some(Duration::from_secs(number.into())),
                _ => return Err(format!("there is no option {name}")),
            }
        }
        Ok(load)
    }

    fn run(mut self) -> Result<String, String> {
        if self.pipeline.run(0, 1).acknowledged.len() != 1 {
            return Err(format!("{} does not take messages", self.pipeline.address));
        }
        let begun = Instant::now();
        self.pipeline.until = self.limit.map(|limit| begun + limit);
        let sent = self.pipeline.run_on(self.connections, 1, self.messages);
        let seconds = begun.elapsed().as_secs_f64();
        if sent.is_lost {
            return Err(format!("{} lost a connection", self.pipeline.address));
        }
        let (messages, refused) = (sent.acknowledged.len() as u64, sent.refused);
        let rate = messages as f64 / seconds;
        Ok(json!({"messages": messages, "refused": refused, "seconds": seconds, "msgs_per_s": rate}).to_string())
    }
}
