//! Weakens each place that the models come by, and asks whether they notice.
//!
//! A weakened model runs in a process of its own, which ends at the first panic: unwinding would run destructors in an
//! order that loom gave up on.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, exit};
use std::sync::{LazyLock, Mutex};
use std::time::Instant;
use std::{env, fs, panic, thread};

use super::{MODELS, Model};
use crate::sync::{Loses, Weakening, take_seen, weaken};

/// The child's orders.
const VARIABLE: &str = "MQLOG_LOOM_WEAKENED";
/// How a child ends that found a failing order, or more steps than an order may have.
const FOUND: i32 = 42;
const ENDLESS: i32 = 43;
/// At least so many places are weakened, a bit under what there were: fewer, and the models come by less than they did.
const LEAST_WEAKENED: usize = 22;

/// A file, a part of a line in it, what that may lose, and why.
type Unmissed = (&'static str, &'static str, Loses, &'static str);

/// What may be missing. The code keeps it, so that each line is right by itself.
const NOT_MISSED: &[Unmissed] = {
    use Loses::{Acquire, Everything, Release};
    const KILLED: &str = "for the file of a process that is killed in between; no other thread looks at these bytes";
    const NOTHING: &str = "nobody learns anything from what was before it";
    const FENCE: &str =
        "a pump that does not see what was asked is followed by one behind a fence, before the thread sleeps";
    const FLAG: &str = "a flag and no more: unpark and join carry the rest";
    const LOCK: &str = "the log lock, which is taken behind it, carries it";
    const SLEEP: &str = "asleep.load(Ordering::Acquire) && !self.stopping.load(Ordering::Acquire)";
    const WAKES: &str = "self.asleep.swap(false, Ordering::AcqRel)";
    const DRIVE: &str = "src/drive.rs";
    const FLUSH: &str = "src/flush/service.rs";
    const FILE: &str = "src/mapped_file/file.rs";
    &[
        (FILE, "fence(Ordering::Release)", Everything, KILLED),
        (FILE, "self.has_writer.swap(true, Ordering::AcqRel)", Release, NOTHING),
        (FLUSH, "self.asked.swap(false, Ordering::AcqRel)", Release, NOTHING),
        (FLUSH, "let is_asked = self.asked.load(Ordering::Acquire)", Everything, FENCE),
        (DRIVE, "self.is_stalled.store(false, Ordering::Release)", Everything, NOTHING),
        (DRIVE, "asleep.swap(false, Ordering::Acquire)", Everything, FENCE),
        (DRIVE, SLEEP, Everything, FENCE),
        (DRIVE, WAKES, Everything, FENCE),
        (DRIVE, WAKES, Acquire, FENCE),
        (DRIVE, WAKES, Release, FENCE),
        (DRIVE, "while !self.stopping.load(Ordering::Acquire)", Everything, FLAG),
        (DRIVE, "self.work.stopping.store(true, Ordering::Release)", Everything, FLAG),
        ("src/commit_log/log.rs", "self.closed.load(Ordering::Acquire)", Everything, LOCK),
        ("src/commit_log/durable.rs", "self.shared.closed.store(true, Ordering::Release)", Everything, LOCK),
    ]
};

/// What running every model in every order has shown.
#[derive(Default)]
struct Seen {
    /// How many orders each model had.
    orders: Vec<(&'static Model, u64)>,
    /// Each place that the models come by, with those models.
    places: BTreeMap<Weakening, Vec<&'static Model>>,
}

static SEEN: LazyLock<Seen> = LazyLock::new(|| {
    let mut seen = Seen::default();
    for model in MODELS {
        let start = Instant::now();
        take_seen();
        let orders = model.check();
        println!("{orders:>9} orders of {:?}, {:.1?}", model.name, start.elapsed());
        seen.orders.push((model, orders));
        for place in take_seen() {
            seen.places.entry(place).or_default().push(model);
        }
    }
    seen
});

#[test]
fn every_order_of_every_model_is_right() {
    let short = SEEN.orders.iter().filter(|(model, orders)| *orders < model.floor);
    let short: Vec<_> = short.map(|(model, orders)| format!("{}: {orders}, not {}", model.name, model.floor)).collect();
    assert!(short.is_empty(), "fewer orders than there should be:\n{}", short.join("\n"));
}

#[test]
fn what_is_not_missed_is_still_there() {
    let is_unused = |entry: &&Unmissed| !SEEN.places.keys().any(|place| matches(entry, place));
    let unused: Vec<_> = NOT_MISSED.iter().filter(is_unused).collect();
    assert!(unused.is_empty(), "no model comes by such a place: {unused:#?}");
}

#[test]
fn each_weakening_is_caught() {
    let mut seen = SEEN.places.clone();
    let total = seen.len();
    seen.retain(|place, _| !NOT_MISSED.iter().any(|entry| matches(entry, place)));
    println!("{total} weakenings, {} of them known not to be missed", total - seen.len());
    assert!(seen.len() >= LEAST_WEAKENED, "{} places are weakened, not {LEAST_WEAKENED}", seen.len());
    let (open, wrong) = (Mutex::new(seen.iter().collect::<Vec<_>>()), Mutex::new(BTreeSet::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some((place, models)) = open.lock().unwrap().pop() else { break };
                    let caught = models.iter().find(|model| is_caught(model, place));
                    let line = source_line(place);
                    let (file, number, _, loses) = place;
                    let by = caught.map_or("NOBODY", |model| model.name);
                    println!("{file}:{number} without {loses:?}: {by} | {line}");
                    if caught.is_none() {
                        wrong.lock().unwrap().insert(format!("{file}:{number} without {loses:?}: {by} | {line}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "nobody notices:\n{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

fn matches((in_file, part, lost, _): &Unmissed, place: &Weakening) -> bool {
    let (file, _, _, loses) = place;
    in_file == file && lost == loses && source_line(place).contains(part)
}

fn is_caught(model: &Model, (file, line, column, loses): &Weakening) -> bool {
    let order = format!("{}|{file}|{line}|{column}|{loses:?}", model.name);
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "loom::weakened::one_weakened_model", "--nocapture"])
        .env(VARIABLE, &order)
        .output()
        .unwrap();
    match child.status.code() {
        Some(0) => false,
        Some(FOUND) => true,
        code => panic!("{order}: {code:?}\n{}", String::from_utf8_lossy(&child.stderr)),
    }
}

/// What a child does; by itself it does nothing.
#[test]
fn one_weakened_model() {
    let Ok(order) = env::var(VARIABLE) else { return };
    let [model, file, line, column, loses] = order.split('|').collect::<Vec<_>>()[..] else { panic!("{order}") };
    let loses = [Loses::Everything, Loses::Acquire, Loses::Release].into_iter().find(|it| format!("{it:?}") == loses);
    panic::set_hook(Box::new(|panicked| {
        let text = panicked.to_string();
        if text.contains("one writer at a time") {
            return;
        }
        eprintln!("{text}");
        exit(if text.contains("maximum number of branches") { ENDLESS } else { FOUND });
    }));
    weaken(file, line.parse().unwrap(), column.parse().unwrap(), loses.unwrap());
    Model::named(model).check();
}

fn source_line((file, number, ..): &Weakening) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.lines().nth(*number as usize - 1).unwrap().trim().to_owned()
}
