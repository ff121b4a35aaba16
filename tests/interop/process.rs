//! Running the programs that are compared: each has a time limit and its output in a file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing here needs more than some seconds; a fetch by Maven may.
const LIMIT: Duration = Duration::from_secs(300);

/// What a program printed.
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) code: Option<i32>,
    stderr: String,
    name: String,
}

impl Output {
    /// The standard output of a program that ended with 0.
    pub(crate) fn ok(self) -> Result<String, String> {
        if self.code == Some(0) { Ok(self.stdout) } else { Err(self.failure()) }
    }

    pub(crate) fn failure(&self) -> String {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let last = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("{} ended with {:?}; the end of its standard error:\n{last}", self.name, self.code)
    }
}

/// Runs a program with empty input to its end.
pub(crate) fn run(command: &mut Command, scratch: &Path) -> Result<Output, String> {
    let name = name(command);
    let (stdout, stderr) = (scratch.join("stdout"), scratch.join("stderr"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(create(&stdout)?)
        .stderr(create(&stderr)?)
        .spawn()
        .map_err(|error| format!("{name} does not start: {error}"))?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| format!("{name}: {error}"))? {
            break status;
        }
        if start.elapsed() > LIMIT {
            let _killed = child.kill();
            return Err(format!("{name} is not done after {LIMIT:?}"));
        }
        sleep(Duration::from_millis(1));
    };
    Ok(Output { stdout: text(&stdout)?, code: status.code(), stderr: text(&stderr)?, name })
}

/// The command line, for messages.
pub(crate) fn name(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = command.get_args().map(|word| word.to_string_lossy());
    // The classpath and the flags of Java's machine say nothing about what went wrong.
    let words = words.filter(|word| word.len() < 200 && !word.starts_with("--add") && !word.starts_with("-X"));
    words.fold(program, |line, word| line + " " + &word)
}

pub(crate) fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) fn text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    String::from_utf8(bytes).map_err(|error| format!("{}: {error}", path.display()))
}

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
