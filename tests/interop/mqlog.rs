//! mqlog, behind its example programs `import` and `inspect`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::json_lines;
use crate::program::{create, name, run, text};

/// An acknowledgement takes milliseconds.
const ACK_LIMIT: Duration = Duration::from_secs(60);
const SIGKILL: i32 = 9;

/// How an `import` ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// Its input ends, and it closes the store.
    Closed,
    /// It is killed when it has acknowledged this many lines, with more to do.
    KilledAfter(usize),
}

/// Puts the lines and gives the acknowledgements in their order.
pub(crate) fn import(
    store: &Path,
    options: &[String],
    lines: Vec<String>,
    end: End,
    scratch: &Path,
) -> Result<Vec<Value>, String> {
    let stderr = scratch.join("import-stderr");
    let count = lines.len();
    let mut command = Command::new(example("import")?);
    command.arg(store).args(options);
    let name = name(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(create(&stderr)?);
    let mut child = command.spawn().map_err(|error| format!("{name} does not start: {error}"))?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("import has no pipes".into());
    };
    // The input of a program that is to be killed stays open, so that it cannot end by itself before.
    let (hold, held) = mpsc::channel::<()>();
    let hold = (end != End::Closed).then_some(hold);
    let feeder = thread::spawn(move || feed(stdin, lines, held));
    let acks = acknowledgements(stdout);
    let result = wait(&mut child, &acks, end).and_then(|acks| json_lines(&acks.join("\n")));
    if result.is_err() {
        let _ended = child.kill();
    }
    drop(hold);
    let status = child.wait().map_err(|error| format!("{name}: {error}"))?;
    feeder.join().map_err(|_| "the thread that feeds import panicked")?;
    let acks = result.map_err(|error| format!("{name}: {error}\n{}", text(&stderr).unwrap_or_default()))?;
    let (right, enough) = match end {
        End::Closed => (status.success(), acks.len() == count),
        End::KilledAfter(least) => (status.signal() == Some(SIGKILL), acks.len() >= least),
    };
    if !right || !enough {
        let errors = text(&stderr)?;
        return Err(format!("{name}: {status}, {} of {count} lines acknowledged\n{errors}", acks.len()));
    }
    Ok(acks)
}

fn feed(mut stdin: ChildStdin, lines: Vec<String>, held: Receiver<()>) {
    for line in lines {
        // The program may be dead already: who waits for it says why.
        if writeln!(stdin, "{line}").is_err() {
            return;
        }
    }
    let _released = held.recv();
}

/// The whole lines that a program prints, until its output ends; a kill may leave half a line.
fn acknowledgements(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || pass_on(BufReader::new(stdout), &sender));
    receiver
}

fn pass_on(mut output: BufReader<ChildStdout>, sender: &Sender<String>) {
    let mut line = String::new();
    while output.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && line.ends_with('\n') {
        if sender.send(line.trim_end().to_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

fn wait(child: &mut Child, acks: &Receiver<String>, end: End) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    loop {
        if end == End::KilledAfter(lines.len()) {
            child.kill().map_err(|error| format!("kill: {error}"))?;
        }
        match acks.recv_timeout(ACK_LIMIT) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Disconnected) => return Ok(lines),
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("no acknowledgement for {ACK_LIMIT:?}, after {} lines", lines.len()));
            }
        }
    }
}

/// Opens the store, which recovers it, and closes it again.
pub(crate) fn recover(store: &Path, options: &[String], scratch: &Path) -> Result<(), String> {
    import(store, options, Vec::new(), End::Closed, scratch).map(drop)
}

/// `inspect STORE log --json`.
pub(crate) fn log(store: &Path, scratch: &Path) -> Result<Vec<Value>, String> {
    inspect(store, &["log", "--json"], scratch)
}

/// `inspect STORE queue TOPIC ID --json` for each queue, as entries that name their queue.
pub(crate) fn queues(store: &Path, queues: &[(String, u64)], scratch: &Path) -> Result<Vec<Value>, String> {
    let mut entries = Vec::new();
    for (topic, queue_id) in queues {
        for mut entry in inspect(store, &["queue", topic, &queue_id.to_string(), "--json"], scratch)? {
            entry["topic"] = json!(topic);
            entry["queue_id"] = json!(queue_id);
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// `inspect STORE key TOPIC KEY --json` for each key: the records it shows.
pub(crate) fn key(store: &Path, topic: &str, key: &str, scratch: &Path) -> Result<Vec<Value>, String> {
    inspect(store, &["key", topic, key, "--json"], scratch)
}

/// `inspect STORE verify`.
pub(crate) fn verify(store: &Path, scratch: &Path) -> Result<(), String> {
    let output = run(Command::new(example("inspect")?).arg(store).arg("verify"), scratch)?;
    if output.code == Some(0) { Ok(()) } else { Err(format!("{}\n{}", output.failure(), output.stdout)) }
}

fn inspect(store: &Path, words: &[&str], scratch: &Path) -> Result<Vec<Value>, String> {
    let output = run(Command::new(example("inspect")?).arg(store).args(words), scratch)?;
    json_lines(&output.ok()?)
}

/// The path of an example program, built with the profile of this test: `cargo test --test interop` alone does not build it.
fn example(name: &str) -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = BUILT.get_or_init(build).as_ref().map_err(Clone::clone)?;
    Ok(folder.join(name))
}

fn build() -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| format!("the path of this test: {error}"))?;
    let folder = test.parent().and_then(Path::parent).ok_or("this test is not in a target folder")?;
    let target = folder.parent().ok_or("this test is not in a target folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-examples");
    std::fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--example", "import", "--example", "inspect", "--profile", profile, "--target-dir"]);
    run(cargo.arg(target), &scratch)?.ok()?;
    Ok(folder.join("examples"))
}
