//! A small store is damaged in a few places and opened.

use super::damage::Damaged;
use super::input::Input;
use super::judge::{Case, How};
use super::stores::base;

/// Opening ends, with a store that shows nothing but whole records, or with a typed error and nothing changed; what is
/// below the damage is there; the store goes on, and another opening agrees.
pub fn open(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let base = base(input.byte());
    let how = How::choose(&mut input);
    let damaged = Damaged::apply(base, &mut input);
    Case::new(base, &damaged, how).judge()
}
