//! Takes crashes apart into their outcomes, and judges each.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mqlog::MessageStore;

use super::common::Random;
use super::common::oracle::{Crash, Oracle, Violation};
use super::workloads::{Place, Run, sent};
use crate::disk::simulated::SimulatedDisk;
use crate::disk::simulated_crash::{Chances, Moment};

/// How thoroughly crashes are taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Depth {
    /// A power loss that can come out in at most this many ways is taken apart wholly.
    pub(super) exhaustive: u128,
    /// Of any other this many outcomes are taken.
    pub(super) samples: usize,
    /// Of a kill in the middle of a store this many cuts are taken.
    pub(super) cuts: usize,
    /// One of so many openings is crashed as well, at this many of its calls.
    pub(super) crash_one_opening_of: u64,
    pub(super) opening_crashes: u64,
    /// In how many of four ways a judged store goes on: with one message or many, to a kill or a power loss.
    pub(super) ways_on: u64,
}

/// What was counted.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) workloads: u64,
    pub(super) moments: u64,
    pub(super) kills: u64,
    pub(super) power_losses: u64,
    /// Power losses of which every outcome was judged.
    pub(super) exhausted: u64,
    /// Crashes in the middle of an opening that follows a crash.
    pub(super) second_crashes: u64,
    /// Stores that were opened and judged.
    pub(super) judged: u64,
    /// Disks with different content among them.
    pub(super) distinct: u64,
}

/// Takes crashes apart and keeps count.
pub(super) struct Explorer<'a> {
    pub(super) depth: Depth,
    pub(super) random: Random,
    pub(super) counts: Counts,
    /// Says of a state if nobody has seen it yet.
    pub(super) is_new: &'a mut dyn FnMut(u128) -> bool,
    /// No more is judged once this many distinct states were.
    pub(super) enough: u64,
    /// States of this workload, each with how much was known when it was judged.
    seen: HashSet<(u128, usize, bool)>,
}

/// A state that a crash left, and what is expected of it.
pub(super) struct Left<'a> {
    pub(super) place: &'a Place,
    pub(super) moment: Moment,
    pub(super) oracle: &'a Oracle,
    /// Which knowledge that is.
    pub(super) version: usize,
    pub(super) crash: Crash,
    /// The number of the next message.
    pub(super) next: u64,
}

impl<'a> Explorer<'a> {
    pub(super) fn new(depth: Depth, seed: u64, enough: u64, is_new: &'a mut dyn FnMut(u128) -> bool) -> Self {
        let (random, counts) = (Random(seed), Counts::default());
        Self { depth, random, counts, is_new, enough, seen: HashSet::new() }
    }

    /// Crashes a run at each of its moments.
    pub(super) fn explore(&mut self, run: &Run) -> Result<(), Violation> {
        self.seen.clear();
        self.counts.workloads += 1;
        let (mut version, mut before) = (0, 0);
        for (index, moment) in run.moments.iter().enumerate() {
            while run.known.get(version + 1).is_some_and(|(from, _)| *from <= index) {
                version += 1;
            }
            // In the middle of a call the caller knows what was known before it.
            let left = |moment, crash, done| {
                let version = if done { version } else { before };
                Left { place: &run.place, moment, oracle: &run.known[version].1, version, crash, next: run.next }
            };
            self.counts.moments += 1;
            let judged = self.crash(moment, &left);
            before = version;
            judged.map_err(|Violation(text)| Violation(format!("crash at moment {index}, {text}")))?;
            if self.counts.distinct >= self.enough {
                break;
            }
        }
        Ok(())
    }

    /// Judges what a kill and a power loss at a moment leave.
    fn crash<'l>(&mut self, moment: &Moment, left: &dyn Fn(Moment, Crash, bool) -> Left<'l>) -> Result<(), Violation> {
        for option in pick(moment.kill_options(), self.depth.cuts, &mut self.random) {
            self.counts.kills += 1;
            self.judge(&left(moment.kill(option), Crash::Kill, option == 0))
                .map_err(|Violation(text)| Violation(format!("kill {option}: {text}")))?;
        }
        let chances = moment.chances();
        let exhaustive = chances.product() <= self.depth.exhaustive;
        self.counts.exhausted += u64::from(exhaustive);
        let mut chosen = vec![0; chances.options.len()];
        for turn in 0.. {
            if !exhaustive {
                if turn == self.depth.samples {
                    break;
                }
                chosen = sample(&chances, turn, &mut self.random);
            }
            self.counts.power_losses += 1;
            self.judge(&left(moment.power_loss(&chances, &chosen), Crash::PowerLoss, true))
                .map_err(|Violation(text)| Violation(format!("power loss {chosen:?}: {text}")))?;
            if exhaustive && !advance(&mut chosen, &chances.options) {
                break;
            }
        }
        Ok(())
    }

    /// Opens a state and judges it, unless that was done; some openings are crashed.
    fn judge(&mut self, left: &Left<'_>) -> Result<(), Violation> {
        let hash = left.moment.hash();
        if !self.seen.insert((hash, left.version, left.crash == Crash::Kill)) {
            return Ok(());
        }
        self.counts.judged += 1;
        let turn = self.counts.judged;
        self.counts.distinct += u64::from((self.is_new)(hash));
        let crashes = self.depth.crash_one_opening_of > 0 && self.random.below(self.depth.crash_one_opening_of) == 0;
        let moments = caught(|| judge(left, turn, crashes))?;
        for other in 1..self.depth.ways_on {
            caught(|| judge(left, turn + other, false))?;
        }
        for _ in 0..self.depth.opening_crashes {
            if moments.is_empty() {
                break;
            }
            let moment = &moments[self.random.below(moments.len() as u64) as usize];
            self.counts.second_crashes += 1;
            let power_loss = left.crash == Crash::PowerLoss || self.random.below(2) == 0;
            let (moment, crash) = if power_loss {
                let chances = moment.chances();
                let chosen = sample(&chances, self.counts.second_crashes as usize, &mut self.random);
                (moment.power_loss(&chances, &chosen), Crash::PowerLoss)
            } else {
                (moment.kill(0), Crash::Kill)
            };
            let crash = if left.crash == Crash::PowerLoss { Crash::PowerLoss } else { crash };
            let again = Left { moment, crash, ..*left };
            let hash = again.moment.hash();
            if self.seen.insert((hash, again.version, crash == Crash::Kill)) {
                self.counts.judged += 1;
                self.counts.distinct += u64::from((self.is_new)(hash));
                caught(|| judge(&again, turn, false))
                    .map_err(|Violation(text)| Violation(format!("then a {crash:?} while it was opened: {text}")))?;
            }
        }
        Ok(())
    }
}

/// A panic in the library is a violation too.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation(format!("a panic: {}", text.unwrap_or_default())))
    })
}

/// Opens a state, judges it, goes on, crashes once more and judges again. `turn` varies how it goes on. Returns the
/// opening's moments if asked for.
pub(super) fn judge(left: &Left<'_>, turn: u64, record: bool) -> Result<Vec<Moment>, Violation> {
    let disk = left.moment.disk();
    let mut oracle = left.oracle.clone();
    let was = oracle.highest_end();
    if record {
        disk.record();
    }
    let store = open(left.place, &disk, 100)?;
    let moments = disk.take_moments();
    oracle.check_opened(&store, left.crash)?;
    // What is put now lies just where something was cut, if anything was, and goes to another queue.
    let lost = store.log_range().end.get() < was;
    // One message leaves the rest of what was cut where it was; more of them write over it.
    let most = if lost && turn.is_multiple_of(2) { 5 } else { 1 };
    let mut next = left.next;
    while next == left.next || (next < left.next + most && store.log_range().end.get() < was) {
        let body_bytes = left.oracle.body_bytes_at(store.log_range().end).unwrap_or(8);
        oracle.put_and_get(&store, 1, sent(next, next as usize, body_bytes))?;
        next += 1;
    }
    let crash = if turn & 2 == 0 { Crash::Kill } else { Crash::PowerLoss };
    let after = match crash {
        Crash::Kill => disk.moment().kill(0),
        Crash::PowerLoss => {
            let chances = disk.moment().chances();
            disk.moment().power_loss(&chances, &vec![0; chances.options.len()])
        }
    };
    let broken = disk.broken_rules();
    disk.switch_off();
    drop(store);
    if !broken.is_empty() {
        return Err(Violation(broken.join(", ")));
    }
    let disk = after.disk();
    let store = open(left.place, &disk, 200)?;
    oracle.check_opened(&store, crash).map_err(|Violation(text)| Violation(format!("opened twice: {text}")))?;
    disk.switch_off();
    Ok(moments)
}

fn open(place: &Place, disk: &SimulatedDisk, session: i64) -> Result<MessageStore, Violation> {
    place.open(disk, session).map_err(|error| Violation(format!("it does not open: {error}")))
}

/// At most `most` of the numbers below `options`, the first always.
fn pick(options: usize, most: usize, random: &mut Random) -> Vec<usize> {
    if options <= most + 1 {
        return (0..options).collect();
    }
    let others = (0..most).map(|_| 1 + random.below(options as u64 - 1) as usize);
    [0].into_iter().chain(others).collect()
}

/// Goes on to the next outcome; `false` behind the last.
fn advance(chosen: &mut [usize], options: &[usize]) -> bool {
    let Some(next) = chosen.iter().zip(options).position(|(at, options)| at + 1 < *options) else { return false };
    chosen[next] += 1;
    chosen[..next].fill(0);
    true
}

/// An outcome: nothing survives, all does, only one thing does not, only one does, or a mixture.
pub(super) fn sample(chances: &Chances, turn: usize, random: &mut Random) -> Vec<usize> {
    let Chances { options, whole, .. } = chances;
    if options.is_empty() {
        return Vec::new();
    }
    let one = random.below(options.len() as u64) as usize;
    let any = |random: &mut Random, index: usize| random.below(options[index] as u64) as usize;
    match turn {
        0 => vec![0; options.len()],
        1 => whole.clone(),
        2 => (0..options.len()).map(|index| if index == one { 0 } else { whole[index] }).collect(),
        _ => match turn % 4 {
            0 => (0..options.len()).map(|index| if index == one { any(random, index) } else { whole[index] }).collect(),
            1 => (0..options.len()).map(|index| if index == one { any(random, index) } else { 0 }).collect(),
            2 => (0..options.len()).map(|index| any(random, index)).collect(),
            // Each of them wholly or not at all.
            _ => whole.iter().map(|whole| if random.below(2) == 0 { 0 } else { *whole }).collect(),
        },
    }
}
