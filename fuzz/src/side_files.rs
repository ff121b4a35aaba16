//! Any bytes as one of the files beside the log.

use super::damage::Damaged;
use super::input::Input;
use super::judge::{Case, How};
use super::stores::base;

const NAMES: [&str; 6] = ["mqlog/format", "mqlog/watermark", "mqlog/derived", "checkpoint", "lock", "abort"];

/// A file beside the log never makes an opening fail, and everything in the log is shown; where the bytes are given a
/// right checksum, and so lie, the opening still ends, and shows whole records only.
pub fn side_files(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let base = base(input.byte());
    let how = How::choose(&mut input);
    let kind = input.byte();
    let is_checked = kind & 1 == 1;
    let name = NAMES[usize::from(kind >> 1) % NAMES.len()];
    let mut damaged = Damaged::new(base);
    let file = match (is_checked, name) {
        (true, "mqlog/watermark") => watermark(input),
        (true, "mqlog/format") => checked_text(input.0),
        (true, "mqlog/derived") => frames(input),
        _ => input.0.to_vec(),
    };
    damaged.lied = is_checked && name.starts_with("mqlog/");
    damaged.put(name, file, false);
    Case::new(base, &damaged, how).judge()
}

/// Two slots with right checksums.
fn watermark(mut input: Input<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    for (at, first) in [(0, 2_u64), (4096, 3)] {
        let mut slot = b"mqlogWM1".to_vec();
        slot.extend_from_slice(&input.number(first).to_be_bytes());
        for _ in 0..6 {
            slot.extend_from_slice(&input.number(4096).to_be_bytes());
        }
        push_crc(&mut slot);
        bytes[at..at + 72].copy_from_slice(&slot);
    }
    bytes
}

fn checked_text(bytes: &[u8]) -> Vec<u8> {
    let mut text = bytes.to_vec();
    let crc = crc32c::crc32c(&text);
    text.extend_from_slice(format!("crc32c {crc:08x}\n").as_bytes());
    text
}

/// Frames whose payloads are what follows a length.
fn frames(mut input: Input<'_>) -> Vec<u8> {
    let mut bytes = b"mqlogDR1".to_vec();
    let mut sequence = 0_u64;
    while !input.is_empty() {
        let count = usize::from(input.u16());
        let payload = input.bytes(count);
        let mut frame = b"mqfr".to_vec();
        frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        frame.extend_from_slice(&sequence.to_be_bytes());
        frame.extend_from_slice(payload);
        push_crc(&mut frame);
        bytes.extend_from_slice(&frame);
        sequence += 1;
    }
    bytes
}

fn push_crc(bytes: &mut Vec<u8>) {
    let crc = u64::from(crc32c::crc32c(bytes));
    bytes.extend_from_slice(&crc.to_be_bytes());
}
