//! Planted bugs.
//
//
