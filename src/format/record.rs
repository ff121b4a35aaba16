//! The record: one message in the commit log, header included.
//!
//! [`RecordFields`] goes in, [`RecordView`] comes out.

pub use super::record_fields::{RecordCrc, RecordFields, encode_blank, place, seal, settled_from, write_crc_digits};
pub use super::record_layout::{
    BLANK_BYTES, BLANK_MAGIC, CRC_PROPERTY_BYTES, MAX_PROPERTIES_BYTES, SysFlag, Transaction, Version, body_crc,
};
pub use super::record_view::{CrcProperty, Item, RecordError, RecordView};
