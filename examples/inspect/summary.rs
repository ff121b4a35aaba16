//! The summary: log range, sizes, damage, topics and queues.

use std::fs;
use std::io;
use std::path::Path;

use mqlog::{MessageStore, RecoveryReport};

use crate::Failure;
use crate::json::{self, Object};
use crate::output::Output;
use crate::table::{lay_out, shown};

/// What the files of one folder need.
#[derive(Debug, Default, Clone, Copy)]
struct Size {
    files: u64,
    bytes: u64,
    /// What they take on the disk; files of a store have their full length from the start and may be sparse.
    disk_bytes: u64,
}

pub(crate) fn show(store: &MessageStore, root: &Path, output: &mut Output) -> Result<(), Failure> {
    let sizes = sizes(root).map_err(Failure::Folder)?;
    if output.is_json() { show_objects(store, &sizes, output) } else { show_tables(store, root, &sizes, output) }
}

fn show_objects(store: &MessageStore, sizes: &[(String, Size)], output: &mut Output) -> Result<(), Failure> {
    let (log, report) = (store.log_range(), store.recovery_report());
    let mut head = Object::default()
        .field("log_start", log.start.get())
        .field("log_end", log.end.get())
        .field("topics", store.topics()?.len())
        .field("queues", store.queues()?.len());
    if let Some(torn) = &report.torn {
        head = head.field("torn_start", torn.start.get()).field("torn_end", torn.end.get());
    }
    output.object(&head)?;
    for (folder, size) in sizes {
        let object = Object::default()
            .field("folder", folder.as_str())
            .field("files", size.files)
            .field("bytes", size.bytes)
            .field("disk_bytes", size.disk_bytes);
        output.object(&object)?;
    }
    for damage in &report.corruptions {
        output.object(&json::damage(damage))?;
    }
    for stray in &report.strays {
        output.object(&Object::default().field("stray", stray.display().to_string()))?;
    }
    for empty in &report.empty_files {
        output.object(&Object::default().field("empty_file", empty.display().to_string()))?;
    }
    for (topic, queue_id) in store.queues()? {
        let range = store.queue(&topic, queue_id).range()?;
        let object = Object::default()
            .field("topic", topic)
            .field("queue_id", queue_id)
            .field("min", range.start.get())
            .field("max", range.end.get());
        output.object(&object)?;
    }
    Ok(())
}

fn show_tables(
    store: &MessageStore,
    root: &Path,
    sizes: &[(String, Size)],
    output: &mut Output,
) -> Result<(), Failure> {
    let log = store.log_range();
    output.text(&format!("store   {}\n", root.display()))?;
    output.text(&format!("log     {} to {}, {} bytes\n", log.start, log.end, log.end - log.start))?;
    output.text(&damage(store.recovery_report()))?;

    let mut rows = vec![["folder", "files", "bytes", "on disk"].map(str::to_owned).to_vec()];
    rows.extend(sizes.iter().map(|(folder, size)| {
        vec![folder.clone(), size.files.to_string(), size.bytes.to_string(), size.disk_bytes.to_string()]
    }));
    output.text("\n")?;
    output.text(&lay_out("<>>>", &rows))?;

    let mut rows = vec![["topic", "queue", "min", "max", "messages"].map(str::to_owned).to_vec()];
    for (topic, queue_id) in store.queues()? {
        let range = store.queue(&topic, queue_id).range()?;
        let numbers = [range.start.get(), range.end.get(), range.end - range.start];
        let mut row = vec![shown(&topic), queue_id.to_string()];
        row.extend(numbers.iter().map(u64::to_string));
        rows.push(row);
    }
    output.text(&format!("\n{} topics, {} queues\n", store.topics()?.len(), rows.len() - 1))?;
    if rows.len() > 1 {
        output.text(&lay_out("<>>>>", &rows))?;
    }
    Ok(())
}

/// What is wrong, as far as opening saw it; `verify` looks at everything.
fn damage(report: &RecoveryReport) -> String {
    let mut lines: Vec<String> = report.corruptions.iter().map(ToString::to_string).collect();
    if let Some(torn) = &report.torn {
        lines.push(format!("the last write was cut short: {} to {}", torn.start, torn.end));
    }
    lines.extend(report.strays.iter().map(|path| format!("not a file of the store: {}", path.display())));
    lines.extend(report.empty_files.iter().map(|path| format!("an empty file behind the last: {}", path.display())));
    if lines.is_empty() { "damage  none seen\n".to_owned() } else { format!("damage  {}\n", lines.join("\n        ")) }
}

/// The sizes of the folders in `root`, in the order of their names, and of the files beside them.
fn sizes(root: &Path) -> io::Result<Vec<(String, Size)>> {
    let (mut folders, mut beside) = (Vec::new(), Size::default());
    for item in fs::read_dir(root)? {
        let item = item?;
        let mut size = Size::default();
        add(&item.path(), &mut size)?;
        if item.path().is_dir() {
            folders.push((item.file_name().to_string_lossy().into_owned(), size));
        } else {
            beside.files += size.files;
            beside.bytes += size.bytes;
            beside.disk_bytes += size.disk_bytes;
        }
    }
    folders.sort_by(|(one, _), (other, _)| one.cmp(other));
    folders.push((".".to_owned(), beside));
    Ok(folders)
}

/// Adds a file, or all files of a folder. A running writer may remove one meanwhile.
fn add(path: &Path, size: &mut Size) -> io::Result<()> {
    let outcome = fs::symlink_metadata(path).and_then(|found| {
        if found.is_dir() {
            return fs::read_dir(path)?.try_for_each(|item| add(&item?.path(), size));
        }
        size.files += 1;
        size.bytes += found.len();
        size.disk_bytes += disk_bytes(&found);
        Ok(())
    });
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(unix)]
fn disk_bytes(found: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(found) * 512
}

#[cfg(not(unix))]
fn disk_bytes(found: &fs::Metadata) -> u64 {
    found.len()
}
