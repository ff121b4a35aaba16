//! RocketMQ's Java clients in a process that takes commands: see `java/mqlog/clients/Main.java`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::maven::{Version, classpath, compile};

/// Nothing takes longer: a consumer waits up to 30 seconds before it corrects an offset.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// A running process, killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Java {
    child: Mutex<Child>,
    input: Mutex<ChildStdin>,
    calls: AtomicU64,
    inbox: Arc<Inbox>,
}

/// What the process said.
#[derive(Debug, Default)]
struct Inbox {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Said {
    answers: HashMap<u64, Value>,
    /// What came unasked, by client.
    unasked: HashMap<String, Vec<Value>>,
    is_over: bool,
}

impl Java {
    /// Starts a version; `flags` are for Java's machine. Its files are in `folder`.
    pub(crate) fn start(version: Version, flags: &[&str], folder: &Path) -> Self {
        let classpath = classpath(classes(), &format!("client-{}", version.name())).unwrap();
        let mut java = Command::new("java");
        java.args(["-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8"]).args(flags);
        for name in ["user.home", "rocketmq.client.logRoot", "rocketmq.client.localOffsetStoreDir"] {
            java.arg(format!("-D{name}={}", folder.display()));
        }
        java.arg("-cp").arg(classpath).arg("mqlog.clients.Main");
        let errors = File::create(folder.join(format!("java-{}.errors", version.name()))).unwrap();
        let mut child = java.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn().expect("java starts");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let inbox = Arc::new(Inbox::default());
        let filled = Arc::clone(&inbox);
        thread::spawn(move || filled.fill(output));
        Self { child: Mutex::new(child), input: Mutex::new(input), calls: AtomicU64::new(0), inbox }
    }

    /// Has a command carried out and returns the answer; a failure is an answer with an `error`.
    pub(crate) fn ask(&self, command: &str, mut fields: Value) -> Value {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        fields["do"] = command.into();
        fields["call"] = call.into();
        writeln!(self.input.lock().unwrap(), "{fields}").expect("Java listens");
        self.wait(command, |said| said.answers.remove(&call))
    }

    /// Has a command carried out that must not fail.
    pub(crate) fn call(&self, command: &str, fields: Value) -> Value {
        let told = fields.to_string();
        let answer = self.ask(command, fields);
        assert!(answer["error"].is_null(), "{command} {}: {answer}", told.chars().take(300).collect::<String>());
        answer
    }

    /// Waits until what clients said unasked fulfils a condition; `what` names it.
    pub(crate) fn until<T>(&self, what: &str, clients: &[&str], mut look: impl FnMut(&[&[Value]]) -> Option<T>) -> T {
        self.wait(what, |said| {
            let unasked: Vec<&[Value]> =
                clients.iter().map(|client| said.unasked.get(*client).map_or(&[][..], Vec::as_slice)).collect();
            look(&unasked)
        })
    }

    /// What a client said unasked so far.
    pub(crate) fn unasked(&self, client: &str) -> Vec<Value> {
        self.inbox.said.lock().unwrap().unasked.get(client).cloned().unwrap_or_default()
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut(&mut Said) -> Option<T>) -> T {
        let begun = Instant::now();
        let mut said = self.inbox.said.lock().unwrap();
        loop {
            if let Some(found) = look(&mut said) {
                return found;
            }
            assert!(!said.is_over, "Java has ended, waiting for: {what}");
            let left = LIMIT.saturating_sub(begun.elapsed());
            if left.is_zero() {
                // Others go on with what was said.
                drop(said);
                panic!("not within {LIMIT:?}: {what}");
            }
            said = self.inbox.changed.wait_timeout(said, left).unwrap().0;
        }
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Inbox {
    fn fill(&self, output: ChildStdout) {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let Ok(mut line) = serde_json::from_str::<Value>(&line) else { continue };
            let mut said = self.said.lock().unwrap();
            match line["call"].as_u64() {
                Some(call) => {
                    said.answers.insert(call, line);
                }
                None => {
                    let client = line["of"].take().as_str().unwrap_or_default().to_owned();
                    said.unasked.entry(client).or_default().push(line);
                }
            }
            self.changed.notify_all();
        }
        self.said.lock().unwrap().is_over = true;
        self.changed.notify_all();
    }
}

/// Compiles the program for both versions, once.
fn classes() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compile("clients").unwrap())
}
