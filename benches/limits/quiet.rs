//! Waiting until nothing that came before is still on its way to the disk.

use std::time::Duration;

/// The disk counts as quiet when nothing was written to it for so long.
const QUIET: Duration = Duration::from_millis(100);
/// Other programs may never be quiet: then the measurement goes on all the same.
const MOST_LOOKS: u32 = 30;

/// Writes out what the system holds for its disks, and waits until they rest; `false` if they did not.
pub(crate) fn wait_until_quiet() -> bool {
    #[cfg(unix)]
    rustix::fs::sync();
    let mut before = sectors_written();
    for _ in 0..MOST_LOOKS {
        std::thread::sleep(QUIET);
        let now = sectors_written();
        if now == before {
            return true;
        }
        before = now;
    }
    false
}

/// Sectors written and discarded since the system started, of every disk; `None` where it does not say.
fn sectors_written() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/diskstats").ok()?;
    let number = |line: &str, column| line.split_ascii_whitespace().nth(column)?.parse::<u64>().ok();
    Some(text.lines().map(|line| number(line, 9).unwrap_or(0) + number(line, 16).unwrap_or(0)).sum())
}
