//! The bytes of every file, and nothing else: no input or output, no locks, no clock.
//!
//! This is the page to read for a tool that reads a store by itself. Names are this crate's; RocketMQ's own are search
//! aliases of the items. Everywhere:
//!
//! - Numbers are big-endian and signed, as Java writes them. Lengths, offsets and counts are never negative: a negative
//!   one is damage. In this module they are unsigned, and encoding asserts that the sign bit stays free.
//! - Texts are UTF-8, but hashes run over UTF-16 units ([`java_hash`]).
//! - CRCs are CRC-32 (IEEE) without the sign bit.
//! - Decoding takes any bytes, never panics and says what is wrong with them. Zeros are never a record or an entry.
//! - Nothing is aligned or padded.
//!
//! # The files
//!
//! | file | holds | here |
//! |---|---|---|
//! | `commitlog/<base offset>` | records, then one blank | [`record`] |
//! | `consumequeue/<topic>/<queue id>/<base offset>` | entries of 20 bytes; entry n of a queue is at byte 20 n | [`queue_entry::QueueEntry`] |
//! | `consumequeue_ext/<topic>/<queue id>/<base offset>` | units, then the end marker | [`queue_entry::ExtensionUnit`] |
//! | `batchconsumequeue/<topic>/<queue id>/<base offset>` | entries of 46 bytes | [`queue_entry::BatchEntry`] |
//! | `index/<local time>` | header, slots, entries | [`index`] |
//! | `checkpoint` | five numbers | [`checkpoint`] |
//!
//! A base offset is the position of the file's first byte in its sequence of files, 20 digits; a local time has 17
//! ([`names`]). How long files are is configuration and not stored in them.
//!
//! # The log
//!
//! ```text
//! file 0                                   file 1 (base offset = length of a file)
//! +--------+--------+--------+-------+     +--------+--------+--------
//! | record | record | record | blank |     | record | record | 0 0 0 ..
//! +--------+--------+--------+-------+     +--------+--------+--------
//!                            | length, magic number, then any bytes
//! ```
//!
//! A record is never cut by a file's end. One that would leave less than the 8 bytes of a blank free goes to the next
//! file, and a blank takes its place: the number of bytes to the file's end, and a magic number of its own.
//!
//! # A record
//!
//! ```text
//!   0        4        8       12       16       20               28
//!   +--------+--------+--------+--------+--------+----------------+----------------+
//!   | length | magic  |body crc|queue id|  flag  |  queue offset  |   log offset   |
//!   +--------+--------+--------+--------+--------+----------------+----------------+
//!  36       40               48               56 or 68         64 or 76
//!   +--------+----------------+----------------+----------------+------------------+
//!   |sys flag|    born time   |   born host    |   store time   |    store host    |
//!   +--------+----------------+----------------+----------------+------------------+
//!  72 + 12n 76 + 12n         84 + 12n 88 + 12n           n: hosts that are IPv6
//!   +--------+----------------+--------+--- - - ---+
//!   |reconsum| prepared offset| length |   body    |
//!   +--------+----------------+--------+--- - - ---+
//!   +------+--- - - ---+----+--- - - ---+- - - - - - - - - - - - - - - - - - - - - +
//!   |length|   topic   |len.|properties |  CRC property, the last 20 of the properties
//!   +------+--- - - ---+----+--- - - ---+- - - - - - - - - - - - - - - - - - - - - +
//!    1 (V1) or 2 (V2)   2
//! ```
//!
//! - *length* is that of the whole record, and redundant: it has to be what the other lengths add up to.
//! - *magic* is `DAA320A7` (V1), `DAA320AB` (V2), or `CBD43194` (blank).
//! - *body crc* covers the body alone, and counts only if there is one.
//! - *queue offset* is the message's number in its queue; 0 in prepared and rolled-back records.
//! - *log offset* is the record's own position, so that a stale copy elsewhere is not taken for a record.
//! - A host is 4 or 16 bytes of address and 4 bytes of port; two bits of *sys flag* say which ([`record::SysFlag`]).
//! - Times are ms since 1970.
//! - Properties are `name 01 value 02`, one after the other ([`properties`]).
//! - The CRC property is `__CRC32#`, `01`, ten digits with the last one first, `02`. It covers everything before itself.
//!
//! # One example
//!
//! A message of `TopicTest`, queue 1, flag 7, with the body `hello0`, born at 192.168.1.2:54321, as RocketMQ 5.3.3
//! stored it at the beginning of its log:
//!
//! ```text
//!   0  00 00 00 BC                              188 bytes
//!   4  DA A3 20 A7                              V1
//!   8  70 36 E9 92                              CRC-32 of `hello0`, F036E992, without its sign bit
//!  12  00 00 00 01                              queue 1
//!  16  00 00 00 07                              flag 7
//!  20  00 00 00 00 00 00 00 00                  the queue's first message
//!  28  00 00 00 00 00 00 00 00                  the log's first record
//!  36  00 00 00 00                              both hosts are IPv4, nothing else
//!  40  00 00 01 8B CF E5 68 00                  born at 1700000000000
//!  48  C0 A8 01 02 00 00 D4 31                  192.168.1.2, port 54321
//!  56  00 00 01 A2 09 86 67 F2                  stored at 1795456133106
//!  64  0A 00 00 01 00 00 2A 9F                  10.0.0.1, port 10911
//!  72  00 00 00 00                              never consumed again
//!  76  00 00 00 00 00 00 00 00                  no transaction
//!  84  00 00 00 06  68 65 6C 6C 6F 30           6 bytes, `hello0`
//!  94  09  54 6F 70 69 63 54 65 73 74           9 bytes, `TopicTest`
//! 104  00 52                                    82 bytes of properties
//! 106  4B 45 59 53 01 4B 65 79 31 02            KEYS = Key1
//! 116  55 4E 49 51 5F 4B 45 59 01 37 46 .. 02   UNIQ_KEY = 7F00000100002A139A5518B4AAC20000
//! 158  54 41 47 53 01 54 61 67 41 02            TAGS = TagA
//! 168  5F 5F 43 52 43 33 32 23 01               __CRC32#
//! 177  36 39 35 30 33 37 36 37 38 31 02         1876730596, the CRC-32 of bytes 0 to 167, EFDCA2E4, without its sign bit
//! ```
//!
//! Its entry in queue 1 of `TopicTest` is `0000000000000000 000000BC 000000000027A807`: the record's position, its length,
//! and the Java hash of `TagA`. The index finds it under `TopicTest#Key1` and
//! `TopicTest#7F00000100002A139A5518B4AAC20000`.
//!
//! # An index file
//!
//! ```text
//! +-----------+----------------------+------------------------------------+
//! | header 40 | slots, 4 bytes each  | entries, 20 bytes each, from 1 on  |
//! +-----------+----------------------+------------------------------------+
//!               hash % slots -> newest entry -> entry before it -> .. -> 0
//! ```
//!
//! # Trade-offs
//!
//! - One log for all topics makes one place to append and to sync, whatever the number of queues; reading one queue then
//!   goes through its entries and jumps in the log.
//! - The body's CRC leaves header, topic and properties unprotected. The CRC property closes this gap and stays readable
//!   for programs that do not know it, at the price of 20 bytes and digits; and since its own ten fixed bytes can be hit
//!   too, nearly right ones count as damage, and so do zeros in its place ([`record::CrcProperty`]).
//! - A blank's length is not needed to find the next file, since all files of a log have the same: so a blank with a
//!   wrong field can be repaired.
//! - A queue entry is found by its number without any search. That is why entries have a fixed size, and why a hash
//!   stands in for the tags.
//! - The index stores no keys, only hashes: whoever finds an entry has to compare the key with the record's.

mod fields;
mod record_layout;

pub mod batch;
pub mod checkpoint;
pub mod index;
pub mod java_hash;
pub mod message_id;
pub mod names;
pub mod properties;
pub mod queue_entry;
pub mod record;

#[cfg(test)]
mod tests;

pub use fields::DecodeError;
