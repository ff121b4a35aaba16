//! A real disk on which chosen calls fail.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::watched_disk::{Answer, Call, Watch};

/// Which calls fail.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// `allocate` and `write_at` of files whose path contains this text find no space.
    pub(crate) full: Mutex<Option<&'static str>>,
    /// Syncs of log files fail.
    pub(crate) no_sync: AtomicBool,
    pub(crate) failed: AtomicU64,
}

/// A log file keeps the path that it was made under.
fn is_log_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_offset = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
    is_offset && (path.contains("/commitlog/") || path.contains("/mqlog/new/"))
}

impl Faults {
    fn check_space(&self, path: &str) -> io::Result<()> {
        match *self.full.lock().unwrap() {
            Some(part) if path.contains(part) => self.fail(io::ErrorKind::StorageFull),
            _ => Ok(()),
        }
    }

    fn check_sync(&self, path: &str) -> io::Result<()> {
        if is_log_file(path) && self.no_sync.load(Ordering::SeqCst) {
            return self.fail(io::ErrorKind::Other);
        }
        Ok(())
    }

    fn fail(&self, kind: io::ErrorKind) -> io::Result<()> {
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(kind.into())
    }
}

impl Watch for Faults {
    fn answer(&self, call: &Call<'_>, path: &Path) -> Answer {
        let path = path.display().to_string();
        match call {
            Call::Allocate(_) => self.check_space(&path).into(),
            // A log file's blocks are there before anything but zeros is written.
            Call::WriteAt(bytes) if !is_log_file(&path) || bytes.iter().all(|byte| *byte == 0) => {
                self.check_space(&path).into()
            }
            Call::Sync => self.check_sync(&path).into(),
            _ => Answer::Go,
        }
    }
}
