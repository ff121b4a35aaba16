//! The record: one message in the commit log, header included.
//!
//! [`RecordFields`] goes in, [`RecordView`] comes out; both share the offsets of this module. Offsets behind the first
//! host depend on the addresses' kind: [`Layout`] has them.

pub use super::record_fields::{RecordCrc, RecordFields, encode_blank, place, seal, write_crc_digits};
pub use super::record_layout::{
    BLANK_BYTES, BLANK_MAGIC, BODY_CRC_AT, BORN_HOST_AT, BORN_MS_AT, CRC_PROPERTY_BYTES, FLAG_AT, LOG_OFFSET_AT,
    Layout, MAGIC_AT, MAX_PROPERTIES_BYTES, QUEUE_ID_AT, QUEUE_OFFSET_AT, SYS_FLAG_AT, SysFlag, TOTAL_SIZE_AT,
    Transaction, Version, body_crc,
};
pub use super::record_view::{CrcProperty, Item, RecordError, RecordView};
