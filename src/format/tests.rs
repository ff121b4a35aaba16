//! Golden bytes of real RocketMQ stores, every shorter input, and any input at all, for every structure.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::DecodeError;
use super::batch::{BatchError, BatchItem, batch_count, batch_items, push_batch_item, stored_properties};
use super::checkpoint::Checkpoint;
use super::index::{IndexEntry, IndexHeader};
use super::properties::{INNER_BASE, INNER_MULTI_QUEUE_OFFSET, Properties};
use super::queue_entry::{BatchEntry, ExtensionUnit, QueueEntry};
use super::record::*;
use super::record_layout::{BODY_CRC_AT, BORN_HOST_AT, LOG_OFFSET_AT, Layout, MAGIC_AT, QUEUE_OFFSET_AT};

/// Written by RocketMQ 4.9.8: no separator behind the last property.
const V498: &str = "\
    000000a7daa320a77036e992000000010000000700000000000000000000000000000000000000000000018b\
    cfe56800c0a801020000d431000001a20983557f0a00000100002a9f00000000000000000000000000000006\
    68656c6c6f3009546f70696354657374003d4b455953014b65793102554e49515f4b45590137463030303030\
    3130303030324131333941353531384234414143323030303002544147530154616741";
/// Written by RocketMQ 5.3.3, as the others.
const V533: &str = "\
    000000a8daa320a77036e992000000010000000700000000000000000000000000000000000000000000018b\
    cfe56800c0a801020000d431000001a2098625250a00000100002a9f00000000000000000000000000000006\
    68656c6c6f3009546f70696354657374003e4b455953014b65793102554e49515f4b45590137463030303030\
    313030303032413133394135353138423441414332303030300254414753015461674102";
const IPV6: &str = "\
    000000b2daa320a777065916000000000000000700000000000000000000000000001a67000000300000018b\
    cfe56800fe800000000000000000000000000001000004d2000001a209862550000000000000000000000000\
    0000000100002a9f00000000000000000000000000000002763609546f706963546573740034554e49515f4b\
    4559013746303030303031303030303241313339413535313842344141433230303030025441475301546167\
    4102";
const V2: &str = "\
    00000111daa320ab706b9d0f000000000000000700000000000000000000000000001b19000000000000018b\
    cfe56800c0a801020000d431000001a2098625510a00000100002a9f00000000000000000000000000000002\
    7632008925524554525925787878787878787878787878787878787878787878787878787878787878787878\
    7878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
    7878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
    787878787878787878002a554e49515f4b455901374630303030303130303030324131333941353531384234\
    414143323030303002";
const BATCH_MEMBER: &str = "\
    0000009adaa320a730cb2b76000000030000000000000000000000000000000000001c2a000000000000018b\
    cfe56800c0a801020000d431000001a20986255b0a00000100002a9f00000000000000000000000000000002\
    623009546f7069635465737400344b45595301626b3002554e49515f4b455901553002574149540174727565\
    0254414753015461674202434c555354455201433102";
const WITH_CRC: &str = "\
    000000bcdaa320a77036e992000000010000000700000000000000000000000000000000000000000000018b\
    cfe56800c0a801020000d431000001a2098667f20a00000100002a9f00000000000000000000000000000006\
    68656c6c6f3009546f7069635465737400524b455953014b65793102554e49515f4b45590137463030303030\
    3130303030324131333941353531384234414143323030303002544147530154616741025f5f435243333223\
    013639353033373637383102";
const INNER_BATCH: &str = "\
    0000010cdaa320a7634f1b2d000000000000000700000000000000000000000000000000000000c00000018b\
    cfe56800c0a801020000d431000001a209867c3b0a00000100002a9f00000000000000000000000000000062\
    0000003100000000000000000000000000000002623000194b455953016b3002574149540174727565025441\
    47530154020000003100000000000000000000000000000002623100194b455953016b310257414954017472\
    75650254414753015402024251004d494e4e45525f42415345013002554e49515f4b45590137463030303030\
    313030303032413133394135353138423441414332303030300254414753015461674102494e4e45525f4e55\
    4d013202";
const LIGHT: &str = "\
    000000dbdaa320a749ddbf16000000010000000700000000000000000000000000000000000000000000018b\
    cfe56800c0a801020000d431000001a2098692330a00000100002a9f00000000000000000000000000000003\
    6c6d7109546f706963546573740074554e49515f4b4559013746303030303031303030303241313339413535\
    31384234414143323030303002494e4e45525f4d554c54495f444953504154434801254c4d5125612c254c4d\
    5125620254414753015461674102494e4e45525f4d554c54495f51554555455f4f464653455401302c3002";

const GOLDEN_RECORDS: [&str; 8] = [V498, V533, IPV6, V2, BATCH_MEMBER, WITH_CRC, INNER_BATCH, LIGHT];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn host(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The fields of a record; the properties without the CRC property.
fn fields_of<'a>(record: &RecordView<'a>) -> (RecordFields<'a>, RecordCrc) {
    let properties = record.properties().as_bytes();
    let (properties, crc) = match record.crc_property() {
        CrcProperty::Absent => (properties, RecordCrc::Off),
        _ => (&properties[..properties.len() - CRC_PROPERTY_BYTES], RecordCrc::On),
    };
    let fields = RecordFields {
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
    };
    (fields, crc)
}

fn encode_again(record: &RecordView<'_>) -> Vec<u8> {
    let (fields, crc) = fields_of(record);
    let mut bytes = vec![0xEE];
    fields.encode(crc, &mut bytes);
    assert_eq!(bytes.len() - 1, fields.record_bytes(crc));
    bytes.split_off(1)
}

/// Calls everything that reads a record.
fn read_everything(record: &RecordView<'_>) {
    let _ = encode_again(record);
    let _ = (
        record.verify(),
        record.message_id(),
        record.unique_key(),
        record.tags(),
        record.topic(),
        record.keys().count(),
    );
}

#[test]
fn real_records_decode_verify_and_encode_to_the_same_bytes() {
    for golden in GOLDEN_RECORDS {
        let bytes = hex(golden);
        let record = RecordView::decode(&bytes).unwrap();
        record.verify().unwrap();
        assert_eq!(record.bytes(), bytes);
        assert_eq!(record.record_bytes() as usize, bytes.len());
        assert_eq!(encode_again(&record), bytes);
    }
}

#[test]
fn a_real_record_has_the_fields_that_were_put() {
    let bytes = hex(V498);
    let record = RecordView::decode(&bytes).unwrap();
    assert_eq!((record.version(), record.queue_id(), record.flag()), (Version::V1, 1, 7));
    assert_eq!((record.queue_offset(), record.log_offset(), record.sys_flag()), (0, 0, SysFlag(0)));
    assert_eq!((record.born_ms(), record.store_ms()), (1_700_000_000_000, 0x1A2_0983_557F));
    assert_eq!((record.born_host(), record.store_host()), (host("192.168.1.2:54321"), host("10.0.0.1:10911")));
    assert_eq!((record.reconsume_times(), record.prepared_transaction_offset()), (0, 0));
    assert_eq!((record.body(), record.body_crc()), (&b"hello0"[..], 0x7036_E992));
    assert_eq!((record.topic().as_ref(), record.topic_bytes()), ("TopicTest", &b"TopicTest"[..]));
    assert_eq!(record.unique_key().as_deref(), Some("7F00000100002A139A5518B4AAC20000"));
    assert_eq!(record.keys().collect::<Vec<_>>(), ["Key1"]);
    assert_eq!(record.tags().as_deref(), Some("TagA"));
    assert_eq!(record.message_id(), "0A00000100002A9F0000000000000000");
    assert_eq!(record.crc_property(), CrcProperty::Absent);
}

#[test]
fn a_real_ipv6_record_has_its_hosts() {
    let bytes = hex(IPV6);
    let record = RecordView::decode(&bytes).unwrap();
    assert_eq!((record.born_host(), record.store_host()), (host("[fe80::1]:1234"), host("[::1]:10911")));
    assert!(record.sys_flag().has(SysFlag::BORN_HOST_V6 | SysFlag::STORE_HOST_V6));
    assert_eq!(record.message_id(), "0000000000000000000000000000000100002A9F0000000000001A67");
}

#[test]
fn a_real_record_with_a_long_topic_is_v2() {
    let bytes = hex(V2);
    let record = RecordView::decode(&bytes).unwrap();
    assert_eq!((record.version(), record.topic_bytes().len(), record.body()), (Version::V2, 137, &b"v2"[..]));
    assert!(record.topic().starts_with("%RETRY%xxx"));
}

#[test]
fn a_real_record_crc_is_read_and_computed() {
    let bytes = hex(WITH_CRC);
    let record = RecordView::decode(&bytes).unwrap();
    assert_eq!(record.verify(), Ok(CrcProperty::Present(1_876_730_596)));
}

#[test]
fn a_real_inner_batch_holds_its_messages() {
    let bytes = hex(INNER_BATCH);
    let record = RecordView::decode(&bytes).unwrap();
    assert_eq!(record.sys_flag(), SysFlag::INNER_BATCH | SysFlag::NEED_UNWRAP);
    assert_eq!(record.properties().get(INNER_BASE), Some(&b"0"[..]));
    let items: Vec<_> = batch_items(record.body()).map(Result::unwrap).collect();
    assert_eq!(
        items[1],
        BatchItem { flag: 0, body: b"b1", properties: b"KEYS\x01k1\x02WAIT\x01true\x02TAGS\x01T\x02" }
    );

    let mut body = Vec::new();
    items.iter().for_each(|item| push_batch_item(&mut body, item));
    assert_eq!(body, record.body());
    assert_eq!(batch_count(&body, 2), Ok(2));
    let source = DecodeError::Length { field: "number of messages", value: 2, limit: 1 };
    assert_eq!(batch_count(&body, 1), Err(BatchError { at: 49, source }));
}

#[test]
fn a_real_batch_member_ends_with_the_properties_of_the_batch() {
    let bytes = hex(BATCH_MEMBER);
    let record = RecordView::decode(&bytes).unwrap();
    let own = b"KEYS\x01bk0\x02UNIQ_KEY\x01U0\x02WAIT\x01true\x02TAGS\x01TagB";
    let mut stored = Vec::new();
    stored_properties(own, b"CLUSTER\x01C1\x02", &mut stored);
    assert_eq!(record.properties().as_bytes(), stored);
}

#[test]
fn a_real_light_queue_record_has_its_offsets() {
    let bytes = hex(LIGHT);
    let record = RecordView::decode(&bytes).unwrap();
    assert_eq!(record.properties().get_str(INNER_MULTI_QUEUE_OFFSET).as_deref(), Some("0,0"));
}

#[test]
fn a_real_blank_decodes_and_is_no_record() {
    let bytes = hex("000006dacbd43194");
    assert!(matches!(Item::decode(&bytes), Ok(Item::Blank { bytes: 1754 })));
    assert_eq!(RecordView::decode(&bytes).unwrap_err(), DecodeError::Blank);
    assert_eq!(encode_blank(1754), *bytes);
    let too_small = Item::decode(&hex("00000007cbd43194")).unwrap_err();
    assert_eq!(too_small, DecodeError::Mismatch { field: "total size", stored: 7, computed: 8 });
    assert!(matches!(Item::decode(&hex("80000000cbd43194")), Err(DecodeError::Negative { .. })));
}

#[test]
fn real_queue_entries_decode_and_encode_to_the_same_bytes() {
    let entry = |log_offset, record_bytes, tags_code| QueueEntry { log_offset, record_bytes, tags_code };
    for (golden, expected) in [
        ("0000000000000000 000000a7 000000000027a807", entry(0, 0xA7, 2_598_919)),
        ("00000000000000a7 000000a7 000000000027a807", entry(0xA7, 0xA7, 2_598_919)),
        ("0000000000001a66 000000ca 000001a209837d1d", entry(0x1A66, 0xCA, 0x1A2_0983_7D1D)),
        ("0000000000000000 000000a7 8000000000000064", entry(0, 0xA7, i64::MIN + 100)),
    ] {
        let bytes = hex(golden);
        assert_eq!(QueueEntry::decode(&bytes), Ok(Some(expected)));
        assert_eq!(expected.encode(), *bytes);
        assert!(!expected.is_filler());
    }
    let filler = hex("0000000000000000 7fffffff 0000000000000000");
    assert_eq!(QueueEntry::FILLER, *filler);
    assert!(QueueEntry::decode(&filler).unwrap().unwrap().is_filler());
}

#[test]
fn a_real_extension_unit_decodes_and_encodes_to_the_same_bytes() {
    let bytes = hex("0014000000000027a807000001a20986a8170000");
    let unit = ExtensionUnit::decode(&bytes).unwrap().unwrap();
    assert_eq!(unit, ExtensionUnit { tags_code: 2_598_919, store_ms: 0x1A2_0986_A817, bit_map: &[] });
    let mut encoded = Vec::new();
    unit.encode(&mut encoded);
    assert_eq!(encoded, bytes);
    assert_eq!(ExtensionUnit::decode(&hex("ffff")), Ok(None));
}

#[test]
fn a_real_batch_entry_decodes_and_encodes_to_the_same_bytes() {
    let bytes =
        hex("0000000000000000 0000010c 000000000027a807 000001a209867c3b 0000000000000000 0002 ffffffff 00000000");
    let entry = BatchEntry::decode(&bytes).unwrap().unwrap();
    assert_eq!((entry.record_bytes, entry.base, entry.count, entry.store_ms), (0x10C, 0, 2, 0x1A2_0986_7C3B));
    assert_eq!(entry.encode(), *bytes);
}

#[test]
fn a_real_index_decodes_and_encodes_to_the_same_bytes() {
    let bytes = hex("000001a20983557f 000001a2098355e1 0000000000000000 0000000000000343 00000002 0000000c");
    let header = IndexHeader::decode(&bytes).unwrap();
    assert_eq!((header.end_offset, header.slot_count, header.next_entry), (0x343, 2, 12));
    assert_eq!(header.encode(), *bytes);

    let bytes = hex("1afee94d 0000000000000000 00000000 00000000");
    let entry = IndexEntry::decode(&bytes).unwrap();
    assert_eq!(entry, IndexEntry { hash: 0x1AFE_E94D, log_offset: 0, seconds: 0, previous: 0 });
    assert_eq!(entry.encode(), *bytes);
}

#[test]
fn a_real_checkpoint_decodes_and_encodes_to_the_same_bytes() {
    let mut bytes = hex("000001a2098355ef 000001a20983560d 000001a2098355ee");
    bytes.resize(Checkpoint::FILE_BYTES, 0);
    let checkpoint = Checkpoint::decode(&bytes).unwrap();
    assert_eq!(
        (checkpoint.log_ms, checkpoint.queue_ms, checkpoint.index_ms),
        (0x1A2_0983_55EF, 0x1A2_0983_560D, 0x1A2_0983_55EE)
    );
    assert_eq!(checkpoint.encode(), bytes[..Checkpoint::BYTES]);
}

#[test]
fn every_shorter_input_is_too_short() {
    for golden in GOLDEN_RECORDS {
        let bytes = hex(golden);
        for have in 0..bytes.len() {
            let need = if have < BLANK_BYTES { BLANK_BYTES } else { bytes.len() };
            assert_eq!(Item::decode(&bytes[..have]).unwrap_err(), DecodeError::TooShort { need, have });
        }
    }
    for have in 0..BatchEntry::BYTES {
        let bytes = &[0x7F; BatchEntry::BYTES][..have];
        let too_short = |need| DecodeError::TooShort { need, have };
        assert_eq!(BatchEntry::decode(bytes), Err(too_short(46)));
        if have < 40 {
            assert_eq!(IndexHeader::decode(bytes), Err(too_short(40)));
            assert_eq!(Checkpoint::decode(bytes), Err(too_short(40)));
        }
        if have < 20 {
            assert_eq!(QueueEntry::decode(bytes), Err(too_short(20)));
            assert_eq!(IndexEntry::decode(bytes), Err(too_short(20)));
        }
    }
    let mut unit = Vec::new();
    ExtensionUnit { tags_code: 1, store_ms: 2, bit_map: &[3; 8] }.encode(&mut unit);
    for have in 0..unit.len() {
        let need = if have < 2 { 2 } else { unit.len() };
        assert_eq!(ExtensionUnit::decode(&unit[..have]), Err(DecodeError::TooShort { need, have }));
    }
    let mut batch = Vec::new();
    push_batch_item(&mut batch, &BatchItem { flag: 0, body: b"body", properties: b"a\x01b" });
    for have in 1..batch.len() {
        let need = if have < 22 { 22 } else { batch.len() };
        assert_eq!(
            batch_count(&batch[..have], 1),
            Err(BatchError { at: 0, source: DecodeError::TooShort { need, have } })
        );
    }
    assert_eq!(batch_count(&[], 1), Ok(0));
}

#[test]
fn zeros_are_no_record_and_no_entry() {
    assert_eq!(Item::decode(&[0; 4096]).unwrap_err(), DecodeError::Zero);
    assert_eq!(QueueEntry::decode(&[0; 20]), Ok(None));
    assert_eq!(BatchEntry::decode(&[0; 46]), Ok(None));
    assert_eq!(ExtensionUnit::decode(&[0; 20]), Ok(None));
    assert_eq!(IndexHeader::decode(&[0; 40]), Ok(IndexHeader::default()));
}

#[test]
fn a_record_under_way_is_an_error() {
    let mut bytes = hex(V533);
    bytes[..4].fill(0);
    assert!(matches!(Item::decode(&bytes), Err(DecodeError::Mismatch { field: "total size", stored: 0, .. })));
}

#[test]
fn every_flipped_bit_of_a_sealed_record_is_found() {
    for golden in GOLDEN_RECORDS {
        let original = hex(golden);
        let (mut fields, _) = fields_of(&RecordView::decode(&original).unwrap());
        for properties in [fields.properties, &[]] {
            fields.properties = properties;
            let mut bytes = Vec::new();
            fields.encode(RecordCrc::On, &mut bytes);
            assert!(matches!(RecordView::decode(&bytes).unwrap().verify(), Ok(CrcProperty::Present(_))));
            for bit in (0..bytes.len() * 8).step_by(if cfg!(miri) { 61 } else { 1 }) {
                bytes[bit / 8] ^= 1 << (bit % 8);
                let found = RecordView::decode(&bytes).and_then(|record| record.verify());
                assert!(found.is_err(), "bit {bit} of a record with properties {properties:?}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

#[test]
fn two_wrong_bytes_in_the_crc_property_are_damage_and_three_are_another_property() {
    let property = *b"__CRC32#\x010123456789\x02";
    let fixed = [0, 1, 2, 3, 4, 5, 6, 7, 8, 19];
    for first in fixed {
        for second in fixed {
            let mut damaged = property;
            damaged[first] ^= 0x40;
            damaged[second] ^= 0x08;
            assert_eq!(CrcProperty::of(&damaged), CrcProperty::Damaged);
            let mut behind_another = b"TAGS\x01TagA\x02".to_vec();
            behind_another.extend(damaged);
            assert_eq!(CrcProperty::of(&behind_another), CrcProperty::Damaged);
        }
    }
    assert_eq!(CrcProperty::of(b"__XYZ32#\x010123456789\x02"), CrcProperty::Absent);
    assert_eq!(CrcProperty::of(b"__CRC32#\x0101234x6789\x02"), CrcProperty::Damaged);
    assert_eq!(CrcProperty::of(b"__CRC32#\x019999999999\x02"), CrcProperty::Damaged);
    assert_eq!(CrcProperty::of(b"_CRC32#\x010123456789\x02"), CrcProperty::Absent);
}

/// Found by fuzzing. `format` was damaged, so nobody knew that every record has the CRC, and a log file was cut within a
/// record's last property and filled up with zeros: the record passed as one without CRC. Now zeros to the end tell that
/// something was there; but not where they are somebody's value, which was called damage for a while (found in swapped files).
#[test]
fn a_record_that_ends_with_zeros_has_lost_its_crc() {
    let whole = b"TAGS\x01TagA\x02__CRC32#\x012345678901\x02";
    for kept in whole.len() - CRC_PROPERTY_BYTES..whole.len() {
        let mut cut = whole.to_vec();
        cut[kept..].fill(0);
        assert_eq!(CrcProperty::of(&cut), CrcProperty::Damaged, "{kept} bytes kept");
    }
    assert_eq!(CrcProperty::of(whole), CrcProperty::Present(1_098_765_432));
    // Somebody's value may end with zeros.
    for absent in
        [&[0; 40][..], &b"a\x01a value that ends so\0\x02"[..], b"a\x01another without separator\0", b"short\0\0"]
    {
        assert_eq!(CrcProperty::of(absent), CrcProperty::Absent);
    }
}

#[test]
fn a_placed_and_sealed_record_is_the_one_encoded_with_its_place() {
    for golden in GOLDEN_RECORDS {
        let original = hex(golden);
        let (mut fields, _) = fields_of(&RecordView::decode(&original).unwrap());
        let mut placed = Vec::new();
        fields.encode_unsealed(RecordCrc::On, &mut placed);
        place(&mut placed, 11, 4096, 1_700_000_000_123);
        seal(&mut placed);
        (fields.queue_offset, fields.log_offset, fields.store_ms) = (11, 4096, 1_700_000_000_123);
        let mut encoded = Vec::new();
        fields.encode(RecordCrc::On, &mut encoded);
        assert_eq!(placed, encoded);
    }
}

#[test]
fn a_wrapped_ipv4_host_is_stored_as_ipv4() {
    let original = hex(V533);
    let (mut fields, crc) = fields_of(&RecordView::decode(&original).unwrap());
    fields.born_host = host("[::ffff:192.168.1.2]:54321");
    let mut bytes = Vec::new();
    fields.encode(crc, &mut bytes);
    assert_eq!(bytes, original);
}

/// What decoding and verifying a real record gives when some of its bytes are others.
fn error_with(at: usize, other: &[u8]) -> DecodeError {
    let mut bytes = hex(V533);
    bytes[at..at + other.len()].copy_from_slice(other);
    RecordView::decode(&bytes).and_then(|record| record.verify()).unwrap_err()
}

#[test]
fn damaged_numbers_are_named() {
    const MINUS_ONE: [u8; 8] = [0xFF; 8];
    let layout = Layout::MIN;
    for (at, bytes, field) in [
        (0, 4, "total size"),
        (QUEUE_OFFSET_AT, 8, "queue offset"),
        (LOG_OFFSET_AT, 8, "log offset"),
        (BORN_HOST_AT + 4, 4, "born host's port"),
        (layout.store_host() + 4, 4, "store host's port"),
        (layout.body() - 4, 4, "body length"),
        (layout.body() + 6, 1, "topic length"),
        (layout.body() + 16, 2, "properties length"),
    ] {
        let expected = DecodeError::Negative { field, value: -1 };
        assert_eq!(error_with(at, &MINUS_ONE[..bytes]), expected);
    }
    let too_long = |field, value, limit| DecodeError::Length { field, value, limit };
    let port = error_with(BORN_HOST_AT + 4, &[0, 1, 0, 0]);
    assert_eq!(port, too_long("born host's port", 65_536, 65_535));
    let body = error_with(layout.body() - 4, &[0x7F; 4]);
    assert_eq!(body, too_long("body length", 0x7F7F_7F7F, 77));
    let topic = error_with(layout.body() + 6, &[0x7F]);
    assert_eq!(topic, too_long("topic length", 127, 71));
    let properties = error_with(layout.body() + 16, &[0, 63]);
    assert_eq!(properties, too_long("properties length", 63, 62));
}

#[test]
fn a_damaged_length_magic_or_body_is_named() {
    let total_size = |stored, computed| DecodeError::Mismatch { field: "total size", stored, computed };
    assert_eq!(error_with(MAGIC_AT, &[1, 2, 3, 4]), DecodeError::Magic(0x0102_0304));
    assert_eq!(error_with(0, &[0, 0, 0, 87]), total_size(87, 88));
    assert_eq!(error_with(0, &[0, 0, 0, 90]), total_size(90, 91));
    let properties_length = Layout::MIN.body() + 16;
    assert_eq!(error_with(properties_length, &[0, 61]), total_size(168, 167));
    let body = error_with(Layout::MIN.body(), b"H");
    assert!(matches!(body, DecodeError::Crc { of: "body", stored: 0x7036_E992, .. }));
}

#[test]
fn a_body_crc_is_not_compared_without_a_body() {
    let original = hex(V533);
    let (mut fields, crc) = fields_of(&RecordView::decode(&original).unwrap());
    fields.body = b"";
    let mut bytes = Vec::new();
    fields.encode(crc, &mut bytes);
    bytes[BODY_CRC_AT..BODY_CRC_AT + 4].fill(7);
    assert_eq!(RecordView::decode(&bytes).unwrap().verify(), Ok(CrcProperty::Absent));
}

#[test]
fn negative_numbers_in_entries_are_errors() {
    let mut bytes = QueueEntry { log_offset: 1, record_bytes: 2, tags_code: 3 }.encode();
    bytes[8] = 0x80;
    assert!(matches!(QueueEntry::decode(&bytes), Err(DecodeError::Negative { field: "record length", .. })));
    bytes[0] = 0x80;
    assert!(matches!(QueueEntry::decode(&bytes), Err(DecodeError::Negative { field: "log offset", .. })));
    let entry = BatchEntry { log_offset: 1, record_bytes: 2, tags_code: 3, store_ms: 4, base: 5, count: 6 };
    let mut bytes = entry.encode();
    bytes[36..38].fill(0);
    assert_eq!(BatchEntry::decode(&bytes), Err(DecodeError::Mismatch { field: "count", stored: 0, computed: 1 }));
    bytes[36] = 0x80;
    assert!(matches!(BatchEntry::decode(&bytes), Err(DecodeError::Negative { field: "count", .. })));
    let mut bytes = IndexEntry { hash: 1, log_offset: 2, seconds: 3, previous: 4 }.encode();
    bytes[16] = 0x80;
    assert!(matches!(IndexEntry::decode(&bytes), Err(DecodeError::Negative { field: "previous entry", .. })));
}

#[test]
fn a_batch_with_wrong_lengths_is_an_error_and_ends() {
    let mut batch = Vec::new();
    push_batch_item(&mut batch, &BatchItem { flag: 1, body: b"body", properties: b"" });
    for (at, byte, field) in
        [(3, 21, "length"), (0, 0x80, "length"), (19, 5, "body length"), (25, 1, "properties length")]
    {
        let mut damaged = batch.clone();
        damaged[at] = byte;
        let items: Vec<_> = batch_items(&damaged).collect();
        assert_eq!(items.len(), 1);
        let Err(BatchError { at: 0, source }) = items[0] else { panic!("{items:?}") };
        use DecodeError::{Length, Mismatch, Negative};
        let (Negative { field: found, .. } | Length { field: found, .. } | Mismatch { field: found, .. }) = source
        else {
            panic!("{source}")
        };
        assert_eq!(found, field);
    }
    let mut damaged = batch.clone();
    damaged[19] = 3;
    assert!(batch_count(&damaged, 9).is_err());
}

prop_compose! {
    fn any_host()(octets in any::<[u8; 16]>(), is_v4: bool, port: u16) -> SocketAddr {
        let ip = if is_v4 { [octets[0], octets[1], octets[2], octets[3]].into() } else { octets.into() };
        SocketAddr::new(ip, port)
    }
}

/// The owned parts of a record's fields, and the rest with those left empty.
fn any_fields() -> impl Strategy<Value = (RecordFields<'static>, Vec<u8>, Vec<u8>, Vec<u8>)> {
    let numbers = any::<(i32, i32, i32, i32, i64, i64, i64)>();
    let offsets = (0..=i64::MAX as u64, 0..=i64::MAX as u64, any::<bool>());
    let body = prop_oneof![vec(any::<u8>(), 0..64), vec(any::<u8>(), 2000..2100)];
    let texts = (body, vec(any::<u8>(), 0..=127), vec(any::<u8>(), 0..300));
    (numbers, offsets, any_host(), any_host(), texts).prop_map(|(numbers, offsets, born_host, store_host, texts)| {
        let (queue_id, flag, sys_flag, reconsume_times, born_ms, store_ms, prepared_transaction_offset) = numbers;
        let (queue_offset, log_offset, is_v2) = offsets;
        let fields = RecordFields {
            version: if is_v2 { Version::V2 } else { Version::V1 },
            queue_id,
            flag,
            queue_offset,
            log_offset,
            sys_flag: SysFlag(sys_flag),
            born_ms,
            born_host,
            store_ms,
            store_host,
            reconsume_times,
            prepared_transaction_offset,
            body: &[],
            topic: &[],
            properties: &[],
        };
        (fields, texts.0, texts.1, texts.2)
    })
}

proptest! {
    #[test]
    fn fields_come_back((fields, body, topic, properties) in any_fields()) {
        let fields = RecordFields { body: &body, topic: &topic, properties: &properties, ..fields };
        let mut bytes = Vec::new();
        fields.encode(RecordCrc::On, &mut bytes);
        let length = bytes.len();
        bytes.extend_from_slice(b"what follows");

        let record = RecordView::decode(&bytes).unwrap();
        prop_assert_eq!(record.record_bytes() as usize, length);
        prop_assert!(matches!(record.verify(), Ok(CrcProperty::Present(_))));
        prop_assert_eq!((record.body(), record.topic_bytes()), (&body[..], &topic[..]));
        prop_assert!(record.properties().as_bytes().starts_with(&properties));
        prop_assert_eq!(record.born_host().ip(), fields.born_host.ip().to_canonical());
        prop_assert_eq!(record.store_host().port(), fields.store_host.port());
        prop_assert_eq!((record.queue_id(), record.flag()), (fields.queue_id, fields.flag));
        prop_assert_eq!((record.born_ms(), record.store_ms()), (fields.born_ms, fields.store_ms));
        prop_assert_eq!((record.queue_offset(), record.log_offset()), (fields.queue_offset, fields.log_offset));
        prop_assert_eq!(encode_again(&record), &bytes[..length]);
    }

    #[test]
    fn a_changed_record_never_panics((fields, body, topic, properties) in any_fields(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let fields = RecordFields { body: &body, topic: &topic, properties: &properties, ..fields };
        let mut bytes = Vec::new();
        fields.encode(RecordCrc::On, &mut bytes);
        for (at, byte) in &changes {
            // The header is where lengths and flags are.
            let at = at.index(if byte % 2 == 0 { bytes.len() } else { 112 });
            bytes[at] = *byte;
        }
        if let Ok(record) = RecordView::decode(&bytes) {
            read_everything(&record);
        }
    }

    #[test]
    fn any_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..400), magic in prop::sample::select(vec![0_u32, BLANK_MAGIC, Version::V1.magic(), Version::V2.magic()])) {
        let _ = QueueEntry::decode(&bytes);
        let _ = BatchEntry::decode(&bytes);
        let _ = ExtensionUnit::decode(&bytes);
        let _ = IndexHeader::decode(&bytes);
        let _ = IndexEntry::decode(&bytes);
        let _ = Checkpoint::decode(&bytes);
        let _ = batch_items(&bytes).count();
        let _ = CrcProperty::of(&bytes);
        let _ = (Properties::new(&bytes).iter().count(), Properties::new(&bytes).get_str("a"));
        let _ = Item::decode(&bytes);
        if bytes.len() >= BLANK_BYTES {
            let total = bytes.len() as u32;
            bytes[..4].copy_from_slice(&total.to_be_bytes());
            bytes[4..8].copy_from_slice(&magic.to_be_bytes());
            let _ = Item::decode(&bytes);
        }
    }

    #[test]
    fn entries_come_back(log_offset in 0..=i64::MAX as u64, record_bytes in 1..=i32::MAX as u32, tags_code: i64, store_ms: i64, count in 1_u16..=32_767) {
        let entry = QueueEntry { log_offset, record_bytes, tags_code };
        prop_assert_eq!(QueueEntry::decode(&entry.encode()), Ok(Some(entry)));
        let entry = BatchEntry { log_offset, record_bytes, tags_code, store_ms, base: log_offset / 3, count };
        prop_assert_eq!(BatchEntry::decode(&entry.encode()), Ok(Some(entry)));
        let entry = IndexEntry { hash: record_bytes, log_offset, seconds: count.into(), previous: record_bytes / 2 };
        prop_assert_eq!(IndexEntry::decode(&entry.encode()), Ok(entry));
        let header = IndexHeader { begin_ms: store_ms, end_ms: tags_code, begin_offset: log_offset / 2, end_offset: log_offset, slot_count: record_bytes / 2, next_entry: record_bytes };
        prop_assert_eq!(IndexHeader::decode(&header.encode()), Ok(header));
        let checkpoint = Checkpoint { log_ms: store_ms, queue_ms: tags_code, index_ms: 1, master_flushed_offset: -1, confirm_offset: 5 };
        prop_assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
    }

    #[test]
    fn a_batch_comes_back(items in vec((any::<i32>(), vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..20)), 0..10)) {
        let mut body = Vec::new();
        for (flag, body_of_item, properties) in &items {
            push_batch_item(&mut body, &BatchItem { flag: *flag, body: body_of_item, properties });
        }
        let found: Vec<_> = batch_items(&body).map(Result::unwrap).collect();
        prop_assert_eq!(found.len(), items.len());
        for (found, item) in found.iter().zip(&items) {
            prop_assert_eq!((found.flag, found.body, found.properties), (item.0, &item.1[..], &item.2[..]));
        }
    }
}
