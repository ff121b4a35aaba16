//! A bar on standard error, where that is a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::limits::Budget;

/// The bar's length stands for the whole run.
const WHOLE: u64 = 1000;

#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(WHOLE), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:40} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Self(bar)
    }

    /// Says what is done now.
    pub(crate) fn say(&self, what: &str) {
        self.0.set_position(0);
        self.0.set_message(what.to_owned());
        self.0.tick();
    }

    /// Shows how far a run is, by messages or by time.
    pub(crate) fn show(&self, what: &str, done: u64, budget: Budget, start: Instant) {
        let took = start.elapsed();
        let by_count = done as f64 / budget.messages as f64;
        let by_time = if budget.time == Duration::MAX { 0.0 } else { took.as_secs_f64() / budget.time.as_secs_f64() };
        self.0.set_position((by_count.max(by_time).min(1.0) * WHOLE as f64) as u64);
        self.0.set_message(format!("{what}, {:.0} messages/s", done as f64 / took.as_secs_f64().max(1e-9)));
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
