//! Groups of consumers: who is a member, and what the group subscribes to. Clients share the queues among themselves;
//! all they need is that every member gets the same list and is told when it changes.
//!
//! Producers' heartbeats are only acknowledged: who commits a transaction, or is asked about one, comes later.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::answer::{Answer, Body, Escaped, escaped_bytes, one_way};
use crate::broker::{Broker, Call, Outcome};
use crate::codes::{ask, say};
use crate::peer::{Peer, lock};
use crate::request::{Refusal, check_name, too_much};
use crate::topics::RETRY_PREFIX;

/// A heartbeat names groups, topics and tags, no more.
const MAX_HEARTBEAT_BYTES: usize = 1 << 20;
/// What a name takes in memory beside its bytes, roughly.
const ENTRY_BYTES: usize = 256;

/// What a group wants of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) expression: String,
    pub(crate) version: i64,
}

#[derive(Debug)]
struct Member {
    peer: Arc<Peer>,
    seen: Instant,
}

#[derive(Debug, Default)]
struct Group {
    members: BTreeMap<String, Member>,
    subscriptions: HashMap<String, Subscription>,
}

#[derive(Debug, Default)]
struct Table {
    groups: HashMap<String, Group>,
    /// What they take; clients that make up names must not fill the memory.
    bytes: usize,
}

/// The table of groups.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    table: Mutex<Table>,
    /// Numbers the broker's own requests.
    opaque: AtomicI32,
}

impl Consumers {
    /// Notes that a client is a member, and what its group subscribes to.
    fn register(
        &self,
        (group_name, client): (&str, &str),
        peer: &Arc<Peer>,
        subscriptions: HashMap<String, Subscription>,
        max_bytes: usize,
    ) -> Result<(), Refusal> {
        let mut table = lock(&self.table);
        let added = table.added_bytes((group_name, client), &subscriptions);
        let Table { groups, bytes } = &mut *table;
        if *bytes + added > max_bytes {
            let name = "names and subscriptions of consumers";
            let remark = format!("{name} take {bytes} bytes, {added} more would exceed the limit of {max_bytes}");
            return Err(Refusal::new(say::SYSTEM_ERROR, remark));
        }
        let had = groups.get(group_name).map_or(0, |group| group.bytes(group_name));
        let group = groups.entry(group_name.to_owned()).or_default();
        let member = Member { peer: Arc::clone(peer), seen: Instant::now() };
        let before = group.members.insert(client.to_owned(), member);
        let is_new = before.is_none_or(|before| !Arc::ptr_eq(&before.peer, peer));
        let has_changed = group.subscribe(subscriptions);
        *bytes = *bytes - had + group.bytes(group_name);
        let told = if is_new || has_changed { group.peers() } else { Vec::new() };
        drop(table);
        self.tell(group_name, &told);
        Ok(())
    }

    /// Takes members out that a condition fits, and tells the rest of their groups.
    fn remove(&self, is_gone: impl Fn(&str, &str, &Member) -> bool) {
        let mut changed = Vec::new();
        let mut table = lock(&self.table);
        let mut bytes = 0;
        table.groups.retain(|name, group| {
            let before = group.members.len();
            group.members.retain(|client, member| !is_gone(name, client, member));
            if group.members.len() < before {
                changed.push((name.clone(), group.peers()));
            }
            bytes += if group.members.is_empty() { 0 } else { group.bytes(name) };
            !group.members.is_empty()
        });
        table.bytes = bytes;
        drop(table);
        changed.iter().for_each(|(name, told)| self.tell(name, told));
    }

    /// A connection is gone.
    pub(crate) fn forget(&self, peer: &Arc<Peer>) {
        self.remove(|_, _, member| Arc::ptr_eq(&member.peer, peer));
    }

    /// Takes out who was silent for too long.
    pub(crate) fn forget_silent(&self, silence: Duration) {
        self.remove(|_, _, member| member.seen.elapsed() > silence);
    }

    /// What a group wants of a topic, if it has members.
    pub(crate) fn subscription(&self, group: &str, topic: &str) -> Option<Subscription> {
        lock(&self.table).groups.get(group)?.subscriptions.get(topic).cloned()
    }

    /// How long the list of a group's members is as text.
    fn list_bytes(&self, group: &str) -> usize {
        let table = lock(&self.table);
        let members = table.groups.get(group).map(|group| group.members.keys());
        members.into_iter().flatten().map(|client| escaped_bytes(client) + 3).sum()
    }

    /// The list of a group's members as JSON, unless there are none.
    fn list(&self, group: &str) -> Option<String> {
        let table = lock(&self.table);
        let members = &table.groups.get(group)?.members;
        let mut text = String::from("{\"consumerIdList\":[");
        for (index, client) in members.keys().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(text, "{comma}\"{}\"", Escaped(client));
        }
        text.push_str("]}");
        Some(text)
    }

    /// Tells members that their group has changed. Who reads nothing is not told: it finds out when it asks.
    fn tell(&self, group: &str, peers: &[Arc<Peer>]) {
        for peer in peers.iter().filter(|peer| !peer.is_full()) {
            let opaque = self.opaque.fetch_add(1, Ordering::Relaxed);
            let notice = one_way(ask::NOTIFY_CONSUMER_IDS_CHANGED, opaque, "consumerGroup", group);
            peer.leave(notice, std::iter::empty());
        }
    }
}

impl Table {
    /// How much more there is with what a heartbeat names.
    fn added_bytes(&self, (name, client): (&str, &str), subscriptions: &HashMap<String, Subscription>) -> usize {
        let group = self.groups.get(name);
        let of_topic = |(topic, new): (&String, &Subscription)| match group.and_then(|it| it.subscriptions.get(topic)) {
            Some(old) => new.expression.len().saturating_sub(old.expression.len()),
            None => entry_bytes(&[topic, &new.expression]),
        };
        let of_group = if group.is_some() { 0 } else { entry_bytes(&[name]) };
        let is_member = group.is_some_and(|group| group.members.contains_key(client));
        let of_client = if is_member { 0 } else { entry_bytes(&[client]) };
        of_group + of_client + subscriptions.iter().map(of_topic).sum::<usize>()
    }
}

fn entry_bytes(texts: &[&str]) -> usize {
    ENTRY_BYTES + texts.iter().map(|text| text.len()).sum::<usize>()
}

impl Group {
    fn bytes(&self, name: &str) -> usize {
        let members = self.members.keys().map(|client| entry_bytes(&[client]));
        let subscriptions = self.subscriptions.iter().map(|(topic, new)| entry_bytes(&[topic, &new.expression]));
        entry_bytes(&[name]) + members.chain(subscriptions).sum::<usize>()
    }

    /// Takes over what the newest heartbeat says. Did a topic come or go?
    fn subscribe(&mut self, subscriptions: HashMap<String, Subscription>) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| subscriptions.contains_key(topic));
        let mut has_changed = self.subscriptions.len() < before;
        for (topic, subscription) in subscriptions {
            match self.subscriptions.get_mut(&topic) {
                Some(present) if present.version >= subscription.version => {}
                Some(present) => *present = subscription,
                None => {
                    self.subscriptions.insert(topic, subscription);
                    has_changed = true;
                }
            }
        }
        has_changed
    }

    /// The connections of its members, each once.
    fn peers(&self) -> Vec<Arc<Peer>> {
        let peers: BTreeMap<_, _> = self.members.values().map(|member| (member.peer.token, &member.peer)).collect();
        peers.into_values().map(Arc::clone).collect()
    }
}

/// Reads a subscription. The codes of its tags are not trusted: some clients send wrong ones.
fn subscription(value: &Value) -> Option<(String, Subscription)> {
    let version = value.get("subVersion");
    // The C++ client sends it as text.
    let version = version.and_then(|version| version.as_i64().or_else(|| version.as_str()?.parse().ok()));
    let expression = value.get("subString").and_then(Value::as_str).unwrap_or("*").to_owned();
    let topic = value.get("topic")?.as_str()?.to_owned();
    Some((topic, Subscription { expression, version: version.unwrap_or(0) }))
}

/// Refuses a subscription that is too long to be kept for each consumer and each held pull.
pub(crate) fn check_subscription(expression: &str, most: usize) -> Result<(), Refusal> {
    let bytes = expression.len();
    let remark = || format!("the consumer's subscription has {bytes} bytes, {most} are allowed");
    if bytes > most { Err(Refusal::new(say::SUBSCRIPTION_PARSE_FAILED, remark())) } else { Ok(()) }
}

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl Broker {
    /// Registers a client's groups. The answer has no fields: with them a client would leave its subscriptions out later.
    pub(crate) fn heartbeat(&self, call: Call<'_>) -> Outcome {
        let bad = |reason: String| Refusal::new(say::SYSTEM_ERROR, format!("bad heartbeat: {reason}"));
        let body = call.request.body;
        if body.len() > MAX_HEARTBEAT_BYTES {
            return Err(bad(format!("it has {} bytes, {MAX_HEARTBEAT_BYTES} are allowed", body.len())));
        }
        let heartbeat: Value = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
        let client = heartbeat.get("clientID").and_then(Value::as_str);
        let client = client.ok_or_else(|| bad("it has no clientID".to_owned()))?;
        check_name("clientID", client)?;
        // Named twice, a group would change and change back.
        let mut named = HashMap::new();
        for consumer in array(&heartbeat, "consumerDataSet") {
            let group = consumer.get("groupName").and_then(Value::as_str);
            let group = group.ok_or_else(|| bad("a consumer has no groupName".to_owned()))?;
            check_name("groupName", group)?;
            named.insert(group, array(consumer, "subscriptionDataSet"));
        }
        for (group, subscriptions) in named {
            let subscriptions: HashMap<_, _> = subscriptions.iter().filter_map(subscription).collect();
            for subscription in subscriptions.values() {
                check_subscription(&subscription.expression, self.limits.max_subscription_bytes)?;
            }
            if self.topics.ensure_retry(&format!("{RETRY_PREFIX}{group}"))? {
                self.saver.save_soon();
            }
            let most = self.limits.max_consumer_bytes;
            self.consumers.register((group, client), call.peer, subscriptions, most)?;
        }
        Ok(Answer::ok().into())
    }

    pub(crate) fn unregister(&self, call: Call<'_>) -> Outcome {
        let fields = &call.request.fields;
        let gone = fields.required("clientID")?;
        if let Some(left) = fields.text("consumerGroup") {
            let peer = call.peer;
            self.consumers
                .remove(|group, client, member| group == left && client == gone && Arc::ptr_eq(&member.peer, peer));
        }
        Ok(Answer::ok().into())
    }

    pub(crate) fn list_consumers(&self, call: Call<'_>) -> Outcome {
        let group = call.request.fields.group()?;
        if !call.peer.has_room_for(self.consumers.list_bytes(group)) {
            return Err(too_much());
        }
        let list = self
            .consumers
            .list(group)
            .ok_or_else(|| Refusal::new(say::SYSTEM_ERROR, format!("no consumer for this group, {group}")))?;
        Ok(Answer::ok().body(Body::Bytes(list.into_bytes())).into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_group_changes_when_a_topic_comes_or_goes() {
        let one = |topic: &str, version| (topic.to_owned(), Subscription { expression: "*".to_owned(), version });
        let mut group = Group::default();
        assert!(group.subscribe([one("a", 1)].into()));
        assert!(!group.subscribe([one("a", 2)].into()));
        assert!(!group.subscribe([one("a", 1)].into()));
        assert_eq!(group.subscriptions["a"].version, 2);
        assert!(group.subscribe([one("b", 1)].into()));
    }

    #[test]
    fn subscriptions_are_read_as_all_clients_send_them() {
        let java = json!({"subString": "a || b", "subVersion": 17, "topic": "T", "codeSet": [0]});
        let cpp = json!({"subString": "a || b", "subVersion": "17", "topic": "T"});
        let expected = Subscription { expression: "a || b".to_owned(), version: 17 };
        for value in [java, cpp] {
            assert_eq!(subscription(&value), Some(("T".to_owned(), expected.clone())));
        }
        assert_eq!(subscription(&json!({"topic": 1})), None);
    }
}
