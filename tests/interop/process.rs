//! What the programs that are compared print, and which files they leave.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One JSON object a line, and nothing else.
pub(crate) fn json_lines(text: &str) -> Result<Vec<Value>, String> {
    let parse = |line: &str| {
        let shown: String = line.chars().take(200).collect();
        serde_json::from_str(line).map_err(|error| format!("not JSON ({error}): {shown}"))
    };
    text.lines().map(parse).collect()
}

/// Every file below `folder` with its length and checksum.
pub(crate) fn contents(folder: &Path) -> Result<Vec<(PathBuf, u64, u32)>, String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).map_err(failed)?;
                files.push((path, bytes.len() as u64, crc32fast::hash(&bytes)));
            }
        }
    }
    files.sort();
    Ok(files)
}
