//! Parameters from the environment. A wrong one ends the test: the default in its place would prove less than was asked for.

use std::env::{VarError, var};

/// A whole number of at least 1.
pub(crate) fn parameter(name: &str, default: u64) -> u64 {
    let text = match var(name) {
        Err(VarError::NotPresent) => return default,
        text => text.unwrap_or_default(),
    };
    match text.parse() {
        Ok(number) if number > 0 => number,
        _ => panic!("{name} has to be a whole number of at least 1, and is {text:?}"),
    }
}
