//! RocketMQ's own two files beside the log: `checkpoint` and `abort`.
//!
//! mqlog writes them for RocketMQ. What mqlog itself believes is in `mqlog/`: these two have no checksum.

use std::path::Path;

use crate::disk::{OpenMode, Storage};
use crate::error::Result;
use crate::format::checkpoint::Checkpoint;

const CHECKPOINT: &str = "checkpoint";
const ABORT: &str = "abort";

/// Reads RocketMQ's `checkpoint`; `None` if there is none, or it is too short to be one.
pub(crate) fn load_checkpoint(storage: &Storage, root: &Path) -> Result<Option<Checkpoint>> {
    let bytes = storage.read_whole(&root.join(CHECKPOINT), Checkpoint::BYTES)?;
    Ok(bytes.and_then(|bytes| Checkpoint::decode(&bytes).ok()))
}

/// Writes RocketMQ's `checkpoint`, durably: in place as RocketMQ does, or whole if it has not its length yet.
///
/// The fields lie in one sector, so a crash leaves the old ones or the new ones.
pub(crate) fn store_checkpoint(storage: &Storage, root: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let path = root.join(CHECKPOINT);
    let fields = checkpoint.encode();
    if storage.info(&path)?.is_some_and(|info| !info.is_dir && info.bytes == Checkpoint::FILE_BYTES as u64) {
        let file = storage.open(&path, OpenMode::ReadWrite)?;
        file.write_at(&fields, 0)?;
        return file.sync();
    }
    let mut whole = [0; Checkpoint::FILE_BYTES];
    whole[..fields.len()].copy_from_slice(&fields);
    storage.replace(&path, &whole)
}

/// Lowers the stamps of log and queues to that of the index, where RocketMQ left them above: of a killed store it drops
/// the index files above that stamp, and would dispatch them again only from the other two on.
pub(crate) fn lower_checkpoint(storage: &Storage, root: &Path) -> Result<()> {
    let Some(known) = load_checkpoint(storage, root)? else { return Ok(()) };
    let Checkpoint { log_ms, queue_ms, index_ms, .. } = known;
    if log_ms.max(queue_ms) <= index_ms {
        return Ok(());
    }
    let lowered = Checkpoint { log_ms: log_ms.min(index_ms), queue_ms: queue_ms.min(index_ms), ..known };
    store_checkpoint(storage, root, &lowered)
}

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
