//! RocketMQ's own store, behind the command line tool in `java/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::check::{Keys, at, shorten_hosts};
use crate::maven::{Version, classpath, compile};
use crate::process::json_lines;
use crate::program::run;

/// What 4.9.8 needs of newer versions of Java to let go of its mappings.
const JAVA_FLAGS: [&str; 8] = [
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dfile.encoding=UTF-8",
    "-Drocketmq.broker.diskSpaceWarningLevelRatio=0.99",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
];

/// 4.9.8 keeps a record CRC, but adds none.
pub(crate) fn adds_record_crc(version: Version, option: bool) -> bool {
    option && version == Version::V533
}

/// What the tool printed.
#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) acknowledged: Vec<Value>,
    pub(crate) log: Vec<Value>,
    pub(crate) queues: Vec<Value>,
    pub(crate) keys: Keys,
}

/// Runs the tool: `words` are its command line behind the store.
pub(crate) fn tool(
    version: Version,
    command: &str,
    store: &Path,
    words: &[String],
    scratch: &Path,
) -> Result<Lines, String> {
    let mut java = Command::new("java");
    // Java makes names of files as the locale says.
    java.env("LC_ALL", "C.UTF-8").args(JAVA_FLAGS);
    java.arg("-cp").arg(classpath(classes()?, &format!("store-{}", version.name()))?);
    java.arg("mqlog.interop.Tool").arg(command).arg(store).args(words);
    let output = run(&mut java, scratch)?.ok().map_err(|error| format!("RocketMQ {}: {error}", version.name()))?;
    sort(json_lines(&output)?)
}

fn sort(rows: Vec<Value>) -> Result<Lines, String> {
    let mut lines = Lines::default();
    let mut hashes = std::collections::HashMap::new();
    for mut row in rows {
        let fields = row.as_object_mut().ok_or("a line that is no object")?;
        let hash = fields.remove("record_sha256");
        match fields.remove("by").as_ref().and_then(Value::as_str) {
            None => {
                shorten_hosts(&mut row)?;
                lines.acknowledged.push(row);
            }
            Some("log") => {
                shorten_hosts(&mut row)?;
                hashes.insert(at(&row, "log_offset")?, hash);
                lines.log.push(row);
            }
            Some("queue") => {
                // The bytes found through the queue are those found in the log.
                if hash.is_none() || hashes.get(&at(&row, "log_offset")?) != Some(&hash) {
                    return Err(format!("the queue gives other bytes than the log: {row}"));
                }
                lines.queues.push(row);
            }
            Some(_) => {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                let offsets = row["log_offsets"].as_array().ok_or("no offsets")?;
                let offsets =
                    offsets.iter().map(|offset| offset.as_u64().ok_or("no offset")).collect::<Result<_, _>>()?;
                lines.keys.insert((text("topic"), text("key")), offsets);
            }
        }
    }
    Ok(lines)
}

/// Builds the tool for both versions, once; gives the folder with its classes.
fn classes() -> Result<&'static Path, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| compile("interop")).as_ref().map(PathBuf::as_path).map_err(Clone::clone)
}
