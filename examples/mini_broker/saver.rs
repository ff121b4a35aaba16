//! The thread that writes the configuration files, so that no event loop waits for the disk.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use crate::answer::Answer;
use crate::broker::{Broker, Call};
use crate::codes::say;
use crate::config::Config;
use crate::peer::{Peer, lock};
use crate::request::Refusal;

/// Consumer offsets are written this often, as RocketMQ does.
const INTERVAL: Duration = Duration::from_secs(5);
/// As long is an answer, roughly.
const ANSWER_BYTES: usize = 256;
pub(crate) const TOPICS_FILE: &str = "topics.json";
pub(crate) const OFFSETS_FILE: &str = "consumerOffset.json";

/// What the thread is asked for.
#[derive(Debug, Default)]
pub(crate) struct Saver {
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Asked {
    topics: bool,
    end: bool,
    /// Who wants to know when the topics are written.
    waiting: Vec<(Arc<Peer>, i32)>,
}

impl Saver {
    /// Topics changed: they are written now.
    pub(crate) fn save_soon(&self) {
        lock(&self.asked).topics = true;
        self.changed.notify_one();
    }

    /// Topics changed: the call is answered when they are written.
    pub(crate) fn save_then_answer(&self, call: Call<'_>) {
        let mut asked = lock(&self.asked);
        asked.topics = true;
        if !call.request.is_one_way() {
            call.peer.begin_pending(ANSWER_BYTES);
            asked.waiting.push((Arc::clone(call.peer), call.request.opaque));
        }
        drop(asked);
        self.changed.notify_one();
    }

    /// Starts the thread.
    pub(crate) fn start(broker: &Arc<Broker>, config: Config) -> io::Result<JoinHandle<()>> {
        let broker = Arc::clone(broker);
        thread::Builder::new().name("broker-saver".to_owned()).spawn(move || run(&broker, &config))
    }

    /// Writes a last time and ends the thread.
    pub(crate) fn end(&self, thread: JoinHandle<()>) {
        lock(&self.asked).end = true;
        self.changed.notify_one();
        // A thread that panicked has said so.
        let _ = thread.join();
    }

    /// Waits until topics are to be written, the interval is over, or the end has come.
    fn next(&self, deadline: Instant) -> Asked {
        let left = deadline.saturating_duration_since(Instant::now());
        let idle = |asked: &mut Asked| !asked.topics && !asked.end;
        let waited = self.changed.wait_timeout_while(lock(&self.asked), left, idle);
        let (mut asked, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let taken = mem::take(&mut *asked);
        asked.end = taken.end;
        taken
    }
}

fn run(broker: &Broker, config: &Config) {
    let mut due = Instant::now() + INTERVAL;
    let (mut topics_told, mut offsets_told, mut health_told) = (None, None, None);
    loop {
        let asked = broker.saver.next(due);
        let saved =
            save(TOPICS_FILE, config, broker.topics.take_changed(), &mut topics_told, || broker.topics.put_back());
        if saved.is_ok() {
            broker.topics.saved();
        }
        for (peer, opaque) in asked.waiting {
            let answer = match &saved {
                Ok(()) => Answer::ok(),
                Err(problem) => Refusal::new(say::SYSTEM_ERROR, problem).into(),
            };
            peer.end_pending(ANSWER_BYTES);
            peer.answer(opaque, answer);
        }
        if asked.end || Instant::now() >= due {
            due = Instant::now() + INTERVAL;
            // The failure was told; the next interval tries again.
            let changed = broker.offsets.take_changed();
            let _ = save(OFFSETS_FILE, config, changed, &mut offsets_told, || broker.offsets.put_back());
            broker.look_after();
            // Clients see that something is wrong with the store, not who can mend it.
            tell(broker.store.health().err().map(|error| format!("the store: {error}")), &mut health_told);
        }
        if asked.end {
            return;
        }
    }
}

/// Says a problem once, until there is another one or none.
fn tell(problem: Option<String>, told: &mut Option<String>) {
    if let Some(problem) = problem.as_ref().filter(|_| *told != problem) {
        crate::complain(problem);
    }
    *told = problem;
}

/// Writes a file if it changed. Every send to a new topic may lead here, so what stands in the way is told once.
fn save(
    name: &str,
    config: &Config,
    text: Option<String>,
    told: &mut Option<String>,
    put_back: impl FnOnce(),
) -> Result<(), String> {
    let Some(text) = text else { return Ok(()) };
    let saved = config.save(name, &text).map_err(|error| {
        put_back();
        format!("{name} cannot be written: {error}")
    });
    tell(saved.as_ref().err().cloned(), told);
    saved
}
