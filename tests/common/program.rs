//! Running a program to its end: it has a time limit and its output in a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

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
