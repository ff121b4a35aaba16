//! The bytes of every file, and nothing else: no input or output, no locks, no clock.

mod fields;
mod record_fields;
mod record_layout;
mod record_view;

pub mod batch;
pub mod checkpoint;
pub mod index;
pub mod java_hash;
pub mod message_id;
pub mod names;
pub mod properties;
pub mod queue_entry;
pub mod record;
