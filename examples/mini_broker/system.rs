//! What the operating system is asked for: descriptors, a queue for those who connect, and to be told when to stop.

use std::io;
use std::net::{SocketAddr, TcpListener};

/// Descriptors that connections leave for the files of the store, if half of all is not less.
#[cfg(unix)]
const RESERVED_DESCRIPTORS: u64 = 1024;
/// As many may connect at the same time and wait for being accepted; fewer where the system allows fewer.
#[cfg(unix)]
const BACKLOG: i32 = 4096;

/// Listens on an address.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // The standard library lets 128 wait. Who listens again only changes that.
    #[cfg(unix)]
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Raises the limit of open files so far that all connections fit, or as far as it goes.
#[cfg(unix)]
pub(crate) fn raise_descriptor_limit(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = (connections as u64).saturating_add(2 * RESERVED_DESCRIPTORS);
    let limit = getrlimit(Resource::Nofile);
    let possible = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if limit.current.is_some_and(|current| current < possible) {
        // With less the broker serves fewer connections.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum: limit.maximum });
    }
}

/// How many connections there can be beside what is open now and what the store will open; `None`: any number.
#[cfg(unix)]
pub(crate) fn possible_connections() -> Option<usize> {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile).current?;
    // Where the system does not tell, there are at least the standard streams.
    let open = std::fs::read_dir("/dev/fd").map_or(3, |files| files.count() as u64);
    let left = limit.saturating_sub(open);
    let possible = left - RESERVED_DESCRIPTORS.min(left / 2);
    Some(usize::try_from(possible).unwrap_or(usize::MAX).max(1))
}

#[cfg(not(unix))]
pub(crate) fn raise_descriptor_limit(_connections: usize) {}

#[cfg(not(unix))]
pub(crate) fn possible_connections() -> Option<usize> {
    None
}

/// Waits for the signal to stop.
pub(crate) struct StopSignal {
    #[cfg(unix)]
    signals: signal_hook::iterator::Signals,
}

impl StopSignal {
    /// From now on SIGINT and SIGTERM do not end the process by themselves.
    #[cfg(unix)]
    pub(crate) fn new() -> io::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        Ok(Self { signals: signal_hook::iterator::Signals::new([SIGINT, SIGTERM])? })
    }

    #[cfg(unix)]
    pub(crate) fn wait(mut self) {
        let _ = self.signals.forever().next();
    }

    #[cfg(not(unix))]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Elsewhere the process is ended from outside; the store opens again as after a crash.
    #[cfg(not(unix))]
    pub(crate) fn wait(self) {
        loop {
            std::thread::park();
        }
    }
}
