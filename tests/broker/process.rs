//! The broker as a process.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::example::example;

/// So long it may take to stop.
const LIMIT: Duration = Duration::from_secs(20);

/// A running broker, killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    errors: Option<ChildStderr>,
    pub(crate) namesrv: SocketAddr,
    pub(crate) address: SocketAddr,
    /// From the start of the process to its ready line.
    pub(crate) ready_after: Duration,
}

impl Broker {
    pub(crate) fn start(store: &Path, options: &[&str]) -> Self {
        Self::start_as(example("mini_broker"), store, options)
    }

    /// Starts it with a limit of open files that it cannot raise.
    pub(crate) fn start_with_descriptors(count: usize, store: &Path, options: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(example("mini_broker").get_program());
        Self::start_as(command, store, options)
    }

    fn start_as(mut command: Command, store: &Path, options: &[&str]) -> Self {
        let begun = Instant::now();
        command.arg("--store").arg(store).args(["--namesrv", "127.0.0.1:0", "--broker", "127.0.0.1:0"]).args(options);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the broker starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("standard output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the broker prints a line");
        let ready_after = begun.elapsed();
        let mut errors = child.stderr.take();
        let addresses = line.strip_prefix("mini_broker is ready: name server ").and_then(|rest| {
            let (namesrv, address) = rest.trim_end().split_once(", broker ")?;
            Some((namesrv.parse().ok()?, address.parse().ok()?))
        });
        let Some((namesrv, address)) = addresses else {
            let mut told = String::new();
            let _ = errors.as_mut().map(|errors| errors.read_to_string(&mut told));
            panic!("no ready line but {line:?}; errors: {told}");
        };
        Self { child, errors, namesrv, address, ready_after }
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the broker can be killed");
        self.child.wait().expect("a killed broker ends");
    }

    /// Stops it with SIGTERM; returns how it ended and what it said on standard error.
    pub(crate) fn stop(mut self) -> (ExitStatus, String) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("the broker can be told");
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the broker can be waited for") {
                break status;
            }
            assert!(begun.elapsed() < LIMIT, "the broker does not stop");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut told = String::new();
        self.errors.take().expect("it is stopped once").read_to_string(&mut told).expect("errors are text");
        (status, told)
    }

    pub(crate) fn stop_well(self) {
        let (status, told) = self.stop();
        assert!(status.success() && told.is_empty(), "{status}: {told}");
    }

    /// Bytes of memory that are no file's.
    pub(crate) fn anonymous_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux tells");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    pub(crate) fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("Linux tells").count()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
