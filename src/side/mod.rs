//! Stand-in until the real one is merged.
pub(crate) mod derived;
