//! Weakens each place that the models come by, and asks whether they notice.
//!
//! A weakened model runs in a process of its own, which ends at the first panic: unwinding would run destructors in an
//! order that loom gave up on.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, exit};
use std::sync::Mutex;
use std::{env, fs, panic, thread};

use super::{MODELS, Model};
use crate::sync::{Loses, Weakening, take_seen, weaken};

/// The child's orders.
const VARIABLE: &str = "MQLOG_LOOM_WEAKENED";
/// How a child ends that found a failing order, or more steps than an order may have.
const FOUND: i32 = 42;
const ENDLESS: i32 = 43;

/// What no model misses, with a part of its line, and why it stands in the code nevertheless.
const NOT_MISSED: &[(&str, &str, Loses, &str)] = &[];

#[test]
fn each_weakening_is_caught() {
    let mut seen: BTreeMap<Weakening, Vec<&Model>> = BTreeMap::new();
    for model in MODELS {
        take_seen();
        model.check();
        for place in take_seen() {
            seen.entry(place).or_default().push(model);
        }
    }
    let (open, wrong) = (Mutex::new(seen.iter().collect::<Vec<_>>()), Mutex::new(BTreeSet::new()));
    let total = seen.len();
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
                    let expected = NOT_MISSED.iter().any(|(in_file, part, lost, _)| {
                        in_file == file && line.contains(part) && lost == loses
                    });
                    if caught.is_some() == expected {
                        wrong.lock().unwrap().insert(format!("{file}:{number} without {loses:?}: {by} | {line}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    println!("{total} weakenings");
    assert!(wrong.is_empty(), "not as expected:\n{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
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
