//! Tests of the index as a whole: against RocketMQ's own files, against a model, with damage, on a full disk.

mod disk;
mod golden;
mod model;
mod sets;
