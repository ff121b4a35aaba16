//! Random messages from a seed, as lines for `import` and as what the store must show of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Map, Value, json};

use crate::check::hex;

const MAX_BODY_BYTES: usize = 100 * 1024;
const TOPICS: [&str; 5] = ["orders", "payments-eu_west|1", "%RETRY%group_a", "主题-ü", "T"];
const TAGS: [&str; 7] = ["TagA", "Aa", "BB", "polygenelubricants", "标签", "😀", "TagA || TagB"];
const KEYS: [&str; 10] = ["Aa", "BB", "AaAa", "BBBB", "key-1", "key-2", "ключ", "注文", "😀", "order/7"];
const NAMES: [&str; 6] = ["region", "trace", "内容", "a", "CLUSTER", "user.id"];
const VALUES: [&str; 7] = ["eu-west", "=", "中文 值", "😀👍🏽", "line1\nline2\ttab", "{\"k\":[1,\"x\"]}", "C:\\dir"];
const TEXTS: [&str; 3] = ["", "plain text", "body: 中文 😀 \u{0}\u{1}\u{2} \"quoted\" \\"];
/// Compressed, several tags, compression types, and the three kinds of transaction.
const SYS_FLAGS: [i32; 7] = [0x1, 0x2, 0x101, 0x301, PREPARED, COMMIT, ROLLBACK];
pub(crate) const PREPARED: i32 = 0x4;
const COMMIT: i32 = 0x8;
pub(crate) const ROLLBACK: i32 = 0xC;
const BORN_HOST_V6: i32 = 0x10;
const STORE_HOST_V6: i32 = 0x20;

/// SplitMix64: the same numbers on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// One message before it is put.
#[derive(Clone)]
struct Draft {
    topic: &'static str,
    queue_id: i32,
    body: Body,
    tags: Option<&'static str>,
    keys: Vec<&'static str>,
    properties: Map<String, Value>,
    flag: i32,
    sys_flag: i32,
    born_ms: i64,
    born_host: SocketAddr,
    store_host: SocketAddr,
    reconsume_times: i32,
    prepared_transaction_offset: i64,
}

/// A body is given as text or as hexadecimal digits.
#[derive(Clone)]
enum Body {
    Text(&'static str),
    Bytes(Vec<u8>),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// What one line of `import` puts: a message, or a batch.
pub(crate) struct Unit {
    drafts: Vec<Draft>,
    batch: bool,
}

impl Unit {
    pub(crate) fn len(&self) -> usize {
        self.drafts.len()
    }

    /// The line for `import`.
    pub(crate) fn line(&self) -> String {
        let mut messages: Vec<Value> = self.drafts.iter().map(Draft::input).collect();
        if self.batch { Value::Array(messages).to_string() } else { messages.remove(0).to_string() }
    }

    /// The fields that each record must have, without those that only the store knows.
    pub(crate) fn expected(&self) -> Vec<Map<String, Value>> {
        self.drafts.iter().map(Draft::expected).collect()
    }

    /// The acknowledgement of each message.
    pub(crate) fn acknowledged(&self, ack: &Value) -> Result<Vec<Map<String, Value>>, String> {
        let acks = match ack {
            Value::Array(acks) if self.batch => acks.clone(),
            Value::Object(_) if !self.batch => vec![ack.clone()],
            other => return Err(format!("not the acknowledgement of {}: {other}", self.line())),
        };
        if acks.len() != self.drafts.len() {
            return Err(format!("{} acknowledgements for a batch of {}", acks.len(), self.drafts.len()));
        }
        acks.into_iter().map(|ack| ack.as_object().cloned().ok_or_else(|| format!("no object: {ack}"))).collect()
    }
}

impl Draft {
    fn input(&self) -> Value {
        let mut line = json!({
            "topic": self.topic,
            "queue_id": self.queue_id,
            "properties": self.properties,
            "flag": self.flag,
            "sys_flag": self.sys_flag,
            "born_ms": self.born_ms,
            "born_host": self.born_host.to_string(),
            "store_host": self.store_host.to_string(),
            "reconsume_times": self.reconsume_times,
            "prepared_transaction_offset": self.prepared_transaction_offset,
        });
        match &self.body {
            Body::Text(text) => line["body"] = json!(text),
            Body::Bytes(bytes) => line["body_hex"] = json!(hex(bytes)),
        }
        if let Some(tags) = self.tags {
            line["tags"] = json!(tags);
        }
        if !self.keys.is_empty() {
            line["keys"] = json!(self.keys);
        }
        line
    }

    fn expected(&self) -> Map<String, Value> {
        let mut properties = self.properties.clone();
        if let Some(tags) = self.tags {
            properties.insert("TAGS".into(), json!(tags));
        }
        if !self.keys.is_empty() {
            properties.insert("KEYS".into(), json!(self.keys.join(" ")));
        }
        let hosts = if self.born_host.is_ipv6() { BORN_HOST_V6 } else { 0 }
            | if self.store_host.is_ipv6() { STORE_HOST_V6 } else { 0 };
        let fields = json!({
            "magic": "v1",
            "body_crc": crc32fast::hash(self.body.bytes()) & 0x7FFF_FFFF,
            "queue_id": self.queue_id,
            "flag": self.flag,
            "sys_flag": self.sys_flag | hosts,
            "born_ms": self.born_ms,
            "born_host": self.born_host.to_string(),
            "store_host": self.store_host.to_string(),
            "reconsume_times": self.reconsume_times,
            "prepared_transaction_offset": self.prepared_transaction_offset,
            "body_hex": hex(self.body.bytes()),
            "topic": self.topic,
            "properties": properties,
        });
        fields.as_object().cloned().unwrap_or_default()
    }
}

/// Messages of every kind that can be put, at least `count` of them.
pub(crate) fn units(seed: u64, count: usize) -> Vec<Unit> {
    let mut random = Random::new(seed);
    let mut units = Vec::new();
    let mut left = count;
    while left > 0 {
        let unit = unit(&mut random, left);
        left -= unit.len();
        units.push(unit);
    }
    units
}

fn unit(random: &mut Random, max: usize) -> Unit {
    let mut first = draft(random);
    if !random.one_in(12) {
        return Unit { drafts: vec![first], batch: false };
    }
    first.sys_flag = 0;
    first.prepared_transaction_offset = 0;
    first.body = body(random, 2000);
    let len = (1 + random.below(8)).min(max);
    let mut drafts = vec![first];
    while drafts.len() < len {
        drafts.push(member(random, &drafts[0]));
    }
    Unit { drafts, batch: true }
}

/// The messages of a batch share what RocketMQ's batch has only once.
fn member(random: &mut Random, first: &Draft) -> Draft {
    let other = draft(random);
    Draft {
        body: body(random, 2000),
        flag: other.flag,
        tags: other.tags,
        keys: other.keys,
        properties: other.properties,
        ..first.clone()
    }
}

fn draft(random: &mut Random) -> Draft {
    let sys_flag = if random.one_in(8) { random.pick(&SYS_FLAGS) } else { 0 };
    let store_host = SocketAddr::from(([10, 0, 0, 1], 10911));
    Draft {
        topic: random.pick(&TOPICS),
        queue_id: if random.one_in(30) { 17 } else { random.below(3) as i32 },
        body: body(random, MAX_BODY_BYTES),
        tags: (!random.one_in(4)).then(|| random.pick(&TAGS)),
        keys: keys(random),
        properties: properties(random),
        flag: if random.one_in(3) { random.next() as i32 } else { 0 },
        sys_flag,
        born_ms: 1_700_000_000_000 + random.below(1_000_000_000) as i64,
        born_host: host(random),
        store_host: if random.one_in(4) { host(random) } else { store_host },
        reconsume_times: if random.one_in(5) { random.below(17) as i32 } else { 0 },
        prepared_transaction_offset: if sys_flag == COMMIT { random.below(1 << 20) as i64 } else { 0 },
    }
}

fn keys(random: &mut Random) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if !random.one_in(3) {
        keys.push(random.pick(&KEYS));
        while random.one_in(3) {
            keys.push(random.pick(&KEYS));
        }
    }
    keys
}

fn properties(random: &mut Random) -> Map<String, Value> {
    let mut properties = Map::new();
    if random.one_in(2) {
        properties.insert("UNIQ_KEY".into(), json!(format!("{:016X}{:016X}", random.next(), random.next())));
    }
    while random.one_in(2) {
        properties.insert(random.pick(&NAMES).into(), json!(random.pick(&VALUES)));
    }
    properties
}

fn body(random: &mut Random, max: usize) -> Body {
    let bytes = match random.below(20) {
        0 => 0,
        1 => max,
        2 => return Body::Text(random.pick(&TEXTS)),
        3..15 => random.below(max.min(600)),
        15..18 => random.below(max.min(8000)),
        _ => random.below(max),
    };
    Body::Bytes((0..bytes).map(|_| random.next() as u8).collect())
}

fn host(random: &mut Random) -> SocketAddr {
    let port = random.next() as u16;
    if !random.one_in(3) {
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::from(random.next() as u32)), port);
    }
    let mut ip = (u128::from(random.next()) << 64 | u128::from(random.next())).to_be_bytes();
    ip[..4].copy_from_slice(&[0x20, 0x01, 0x0D, 0xB8]);
    let zeros = random.below(10);
    ip[4..4 + zeros].fill(0);
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_messages_again_and_every_kind_of_them() {
        let units = units(1, 1000);
        assert_eq!(units.iter().map(Unit::len).sum::<usize>(), 1000);
        assert!(units.iter().zip(super::units(1, 1000)).all(|(unit, again)| unit.line() == again.line()));
        let drafts: Vec<&Draft> = units.iter().flat_map(|unit| &unit.drafts).collect();
        assert!(units.iter().any(|unit| unit.batch && unit.len() > 1));
        assert!(drafts.iter().any(|draft| draft.body.bytes().is_empty()));
        assert!(drafts.iter().any(|draft| draft.body.bytes().len() == MAX_BODY_BYTES));
        assert!(drafts.iter().any(|draft| draft.born_host.is_ipv6() && !draft.store_host.is_ipv6()));
        assert!(drafts.iter().any(|draft| draft.store_host.is_ipv6()));
        for flag in SYS_FLAGS {
            assert!(drafts.iter().any(|draft| draft.sys_flag == flag), "no message has the flag {flag:#x}");
        }
    }
}
