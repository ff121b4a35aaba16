//! What the operating system is asked for: more descriptors, and to be told when to stop.

use std::io;

/// Descriptors beside the connections: the store's files, listeners, polls.
#[cfg(unix)]
const OTHER_DESCRIPTORS: u64 = 1024;

/// Raises the limit of open files so far that all connections fit, or as far as it goes.
#[cfg(unix)]
pub(crate) fn raise_descriptor_limit(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = connections as u64 + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    let possible = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if limit.current.is_some_and(|current| current < possible) {
        // With less the broker serves fewer connections.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum: limit.maximum });
    }
}

#[cfg(not(unix))]
pub(crate) fn raise_descriptor_limit(_connections: usize) {}

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
