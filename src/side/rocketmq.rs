//! RocketMQ's own two files beside the log: `checkpoint` and `abort`.
//!
//! mqlog writes them for RocketMQ. What mqlog itself believes is in `mqlog/`: these two have no checksum.

use std::path::Path;

use crate::disk::{OpenMode, Storage};
use crate::error::Result;

const ABORT: &str = "abort";

/// Is there an `abort` file: was the store killed, or is it open?
pub(crate) fn has_abort(storage: &Storage, root: &Path) -> Result<bool> {
    Ok(storage.info(&root.join(ABORT))?.is_some())
}

/// Makes the `abort` file, durably; from now on RocketMQ knows that files may be half written.
///
/// Only the name counts. It is synced even if it existed: RocketMQ does not do that.
pub(crate) fn create_abort(storage: &Storage, root: &Path) -> Result<()> {
    if !has_abort(storage, root)? {
        let file = storage.open(&root.join(ABORT), OpenMode::Create)?;
        file.write_at(std::process::id().to_string().as_bytes(), 0)?;
        file.sync()?;
    }
    storage.sync_dir(root)
}

/// Removes the `abort` file, durably: everything RocketMQ reads is complete.
pub(crate) fn remove_abort(storage: &Storage, root: &Path) -> Result<()> {
    storage.remove_file(&root.join(ABORT))?;
    storage.sync_dir(root)
}
