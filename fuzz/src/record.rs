//! Any bytes as an item of the log.

use mqlog::format::message_id::OffsetMessageId;
use mqlog::format::properties::VALUE_END;
use mqlog::format::record::{
    BLANK_BYTES, CRC_PROPERTY_BYTES, CrcProperty, Item, RecordCrc, RecordFields, RecordView, SysFlag, body_crc,
    encode_blank, place, seal, settled_from,
};

/// A record that is accepted lies inside the bytes, is what its fields encode to, and passes `verify` once its checksums
/// are made right.
pub fn record(bytes: &[u8]) -> bool {
    match Item::decode(bytes) {
        Ok(Item::Record(record)) => accepted(bytes, &record),
        Ok(Item::Blank { bytes: left }) => {
            assert_eq!(encode_blank(left)[..], bytes[..BLANK_BYTES]);
            return false;
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    }
    true
}

fn accepted(bytes: &[u8], record: &RecordView<'_>) {
    let own = record.bytes();
    assert_eq!(own, &bytes[..own.len()]);
    assert_eq!(record.record_bytes() as usize, own.len());
    let inside = own.as_ptr_range();
    for part in [record.body(), record.topic_bytes(), record.properties().as_bytes()] {
        let part = part.as_ptr_range();
        assert!(inside.start <= part.start && part.end <= inside.end, "a field leaves the record");
    }
    // Nothing behind the record has a say, and nothing of it can be missing.
    let again = RecordView::decode(own).unwrap();
    assert_eq!((again.verify(), again.bytes()), (record.verify(), own));
    assert!(RecordView::decode(&own[..own.len() - 1]).is_err());

    let id: OffsetMessageId = record.message_id().parse().unwrap();
    assert_eq!((id.host, id.log_offset), (record.store_host(), record.log_offset()));
    assert!(record.keys().all(|key| !key.is_empty() && !key.contains(' ')));
    let _ = (record.topic(), record.tags(), record.unique_key());

    encodes_to_itself(record);
    can_be_sealed(record);
    can_be_placed(record);
}

/// Encoding makes checksums right and unwraps IPv4 addresses in IPv6 ones; all else is kept.
fn encodes_to_itself(record: &RecordView<'_>) {
    let hosts = [record.born_host(), record.store_host()];
    let is_canonical = hosts.iter().all(|host| host.ip().to_canonical() == host.ip());
    let is_checked = record.verify().is_ok() && record.body_crc() == body_crc(record.body());
    if !is_canonical || !is_checked {
        return;
    }
    let properties = record.properties().as_bytes();
    let fields = fields_of(record, properties);
    let mut out = Vec::new();
    fields.encode(RecordCrc::Off, &mut out);
    assert_eq!(out, record.bytes());
    if let CrcProperty::Present(_) = record.crc_property() {
        let before = &properties[..properties.len() - CRC_PROPERTY_BYTES];
        if before.last().is_none_or(|last| *last == VALUE_END) {
            out.clear();
            let fields = fields_of(record, before);
            fields.encode(RecordCrc::On, &mut out);
            assert_eq!((out.len(), &out[..]), (fields.record_bytes(RecordCrc::On), record.bytes()));
        }
    }
}

fn fields_of<'a>(record: &RecordView<'a>, properties: &'a [u8]) -> RecordFields<'a> {
    RecordFields {
        version: record.version(),
        queue_id: record.queue_id(),
        flag: record.flag(),
        queue_offset: record.queue_offset(),
        log_offset: record.log_offset(),
        sys_flag: record.sys_flag(),
        born_ms: record.born_ms(),
        born_host: record.born_host(),
        store_ms: record.store_ms(),
        store_host: record.store_host(),
        reconsume_times: record.reconsume_times(),
        prepared_transaction_offset: record.prepared_transaction_offset(),
        body: record.body(),
        topic: record.topic_bytes(),
        properties,
    }
}

fn can_be_sealed(record: &RecordView<'_>) {
    let mut bytes = record.bytes().to_vec();
    bytes[8..12].copy_from_slice(&body_crc(record.body()).to_be_bytes());
    match record.crc_property() {
        CrcProperty::Present(_) => seal(&mut bytes),
        CrcProperty::Absent => {}
        CrcProperty::Damaged => {
            assert!(record.verify().is_err());
            return;
        }
    }
    let sealed = RecordView::decode(&bytes).unwrap();
    let property = sealed.verify().unwrap();
    if let CrcProperty::Present(_) = property {
        // The last property covers every byte before it.
        let at = record.flag() as usize % (bytes.len() - CRC_PROPERTY_BYTES);
        bytes[at] ^= 1;
        let is_found = RecordView::decode(&bytes).map_or(true, |changed| changed.verify().is_err());
        assert!(is_found, "a changed byte at {at} is not noticed");
    }
}

fn can_be_placed(record: &RecordView<'_>) {
    let mut bytes = record.bytes().to_vec();
    place(&mut bytes, 7, i64::MAX as u64, -9);
    let placed = RecordView::decode(&bytes).unwrap();
    assert_eq!((placed.queue_offset(), placed.log_offset(), placed.store_ms()), (7, i64::MAX as u64, -9));
    let from = settled_from(&bytes);
    assert_eq!(bytes[from..], record.bytes()[from..]);
    assert_eq!(placed.born_host(), record.born_host());
    assert_eq!(record.born_host().is_ipv6(), record.sys_flag().has(SysFlag::BORN_HOST_V6));
}
