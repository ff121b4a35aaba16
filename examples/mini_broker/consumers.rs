//! Groups of consumers: who is a member, and what the group subscribes to. Clients share the queues among themselves;
//! all they need is that every member gets the same list and is told when it changes.
//!
//! Producers' heartbeats are only acknowledged: who commits a transaction, or is asked about one, comes later.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::answer::{Answer, Body, Escaped, escaped_bytes, one_way};
use crate::broker::{Broker, Call, Outcome};
use crate::codes::{ask, say};
use crate::consumer_table::{Changed, ConsumerTable, Group, Subscription};
use crate::peer::{Peer, lock};
use crate::request::{Refusal, check_name, too_much};
use crate::topics::RETRY_PREFIX;

/// A heartbeat names groups, topics and tags, no more.
const MAX_HEARTBEAT_BYTES: usize = 1 << 20;
/// The table of groups.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    table: Mutex<ConsumerTable>,
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
        let (bytes, added) = (table.bytes(), table.added_bytes((group_name, client), &subscriptions));
        if bytes + added > max_bytes {
            let name = "names and subscriptions of consumers";
            let remark = format!("{name} take {bytes} bytes, {added} more would exceed the limit of {max_bytes}");
            return Err(Refusal::new(say::SYSTEM_ERROR, remark));
        }
        let told = table.register((group_name, client), peer, subscriptions);
        drop(table);
        self.tell(group_name, &told);
        Ok(())
    }

    /// Connections are gone.
    pub(crate) fn forget(&self, peers: &[Arc<Peer>]) {
        let changed = lock(&self.table).forget(peers);
        self.tell_all(&changed);
    }

    /// Takes out who was silent for too long.
    pub(crate) fn forget_silent(&self, silence: Duration) {
        let changed = lock(&self.table).forget_silent(silence);
        self.tell_all(&changed);
    }

    /// What a group wants of a topic, if it has members.
    pub(crate) fn subscription(&self, group: &str, topic: &str) -> Option<Subscription> {
        lock(&self.table).group(group)?.subscription(topic).cloned()
    }

    /// How long the list of a group's members is as text.
    fn list_bytes(&self, group: &str) -> usize {
        let table = lock(&self.table);
        let clients = table.group(group).map(Group::clients);
        clients.into_iter().flatten().map(|client| escaped_bytes(client) + 3).sum()
    }

    /// The list of a group's members as JSON, unless there are none.
    fn list(&self, group: &str) -> Option<String> {
        let table = lock(&self.table);
        let mut text = String::from("{\"consumerIdList\":[");
        for (index, client) in table.group(group)?.clients().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(text, "{comma}\"{}\"", Escaped(client));
        }
        text.push_str("]}");
        Some(text)
    }

    fn tell_all(&self, changed: &[Changed]) {
        changed.iter().for_each(|(group, peers)| self.tell(group, peers));
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
            let changed = lock(&self.consumers.table).remove((left.to_owned(), gone.to_owned()), call.peer);
            self.consumers.tell_all(changed.as_slice());
        }
        Ok(Answer::ok().into())
    }

    pub(crate) fn list_consumers(&self, call: Call<'_>) -> Outcome {
        let group = call.request.fields.group()?;
        let (bytes, limit) = (self.consumers.list_bytes(group), self.limits.max_frame_bytes);
        if bytes > limit {
            let remark = format!("the consumers of {group} take {bytes} bytes, a frame has at most {limit}");
            return Err(Refusal::new(say::SYSTEM_ERROR, remark));
        }
        if !call.peer.has_room_for(bytes) {
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
