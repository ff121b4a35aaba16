//! The table of consumer groups: members, subscriptions, and what they take in memory.
//!
//! - A member is known by its group and its client id, and belongs to the connection that named it last.
//! - What a connection has, `of_peer` knows: that one goes costs nothing where it was no member.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Token;

use crate::peer::Peer;

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
pub(crate) struct Group {
    members: BTreeMap<String, Member>,
    subscriptions: HashMap<String, Subscription>,
}

/// Group and client id of a member.
type MemberName = (String, String);

/// All groups that have members.
#[derive(Debug, Default)]
pub(crate) struct ConsumerTable {
    groups: HashMap<String, Group>,
    /// The members that a connection has.
    of_peer: HashMap<Token, HashSet<MemberName>>,
    /// What all of it takes; clients that make up names must not fill the memory.
    bytes: usize,
}

/// A group that changed, and the connections to tell.
pub(crate) type Changed = (String, Vec<Arc<Peer>>);

impl ConsumerTable {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    /// How much more there is with what a heartbeat names.
    pub(crate) fn added_bytes(
        &self,
        (name, client): (&str, &str),
        subscriptions: &HashMap<String, Subscription>,
    ) -> usize {
        let group = self.groups.get(name);
        let of_topic = |(topic, new): (&String, &Subscription)| match group.and_then(|it| it.subscriptions.get(topic)) {
            Some(old) => new.expression.len().saturating_sub(old.expression.len()),
            None => entry_bytes(&[topic, &new.expression]),
        };
        let of_group = if group.is_some() { 0 } else { entry_bytes(&[name]) };
        let is_member = group.is_some_and(|group| group.members.contains_key(client));
        let of_client = if is_member { 0 } else { member_bytes(name, client) };
        of_group + of_client + subscriptions.iter().map(of_topic).sum::<usize>()
    }

    /// Notes that a client is a member, and what its group subscribes to; returns whom to tell if that is new.
    pub(crate) fn register(
        &mut self,
        (name, client): (&str, &str),
        peer: &Arc<Peer>,
        subscriptions: HashMap<String, Subscription>,
    ) -> Vec<Arc<Peer>> {
        let Self { groups, of_peer, bytes } = self;
        let group = groups.entry(name.to_owned()).or_insert_with(|| {
            *bytes += entry_bytes(&[name]);
            Group::default()
        });
        let member = Member { peer: Arc::clone(peer), seen: Instant::now() };
        let before = group.members.insert(client.to_owned(), member);
        let is_new = before.as_ref().is_none_or(|before| !Arc::ptr_eq(&before.peer, peer));
        if is_new {
            let full_name = (name.to_owned(), client.to_owned());
            match before {
                Some(before) => forget_name(of_peer, before.peer.token, &full_name),
                None => *bytes += member_bytes(name, client),
            }
            of_peer.entry(peer.token).or_default().insert(full_name);
        }
        let had = group.subscription_bytes();
        let has_changed = group.subscribe(subscriptions);
        *bytes = *bytes - had + group.subscription_bytes();
        if is_new || has_changed { group.peers() } else { Vec::new() }
    }

    /// Takes a member out if it belongs to the connection.
    pub(crate) fn remove(&mut self, name: MemberName, peer: &Arc<Peer>) -> Option<Changed> {
        let member = self.groups.get(&name.0)?.members.get(&name.1)?;
        let is_own = Arc::ptr_eq(&member.peer, peer);
        if is_own { self.remove_all([name].into()).pop() } else { None }
    }

    /// Takes out what connections have that are gone.
    pub(crate) fn forget(&mut self, peers: &[Arc<Peer>]) -> Vec<Changed> {
        let names = peers.iter().filter_map(|peer| self.of_peer.get(&peer.token)).flatten().cloned().collect();
        self.remove_all(names)
    }

    /// Takes out who was silent for too long.
    pub(crate) fn forget_silent(&mut self, silence: Duration) -> Vec<Changed> {
        let members = self.groups.iter().flat_map(|(name, group)| group.members.iter().map(move |it| (name, it)));
        let silent = members.filter(|(_, (_, member))| member.seen.elapsed() > silence);
        let names = silent.map(|(name, (client, _))| (name.clone(), client.clone())).collect();
        self.remove_all(names)
    }

    /// Takes members out; returns their groups that still have some.
    fn remove_all(&mut self, names: Vec<MemberName>) -> Vec<Changed> {
        let mut changed = HashSet::new();
        for full_name in names {
            let (name, client) = &full_name;
            let Some(member) = self.groups.get_mut(name).and_then(|group| group.members.remove(client)) else {
                continue;
            };
            self.bytes -= member_bytes(name, client);
            forget_name(&mut self.of_peer, member.peer.token, &full_name);
            changed.insert(full_name.0);
        }
        let mut told = Vec::new();
        for name in changed {
            let group = &self.groups[&name];
            if group.members.is_empty() {
                self.bytes -= entry_bytes(&[&name]) + group.subscription_bytes();
                self.groups.remove(&name);
            } else {
                let peers = group.peers();
                told.push((name, peers));
            }
        }
        told
    }
}

fn forget_name(of_peer: &mut HashMap<Token, HashSet<MemberName>>, token: Token, name: &MemberName) {
    let Some(names) = of_peer.get_mut(&token) else { return };
    names.remove(name);
    if names.is_empty() {
        of_peer.remove(&token);
    }
}

fn entry_bytes(texts: &[&str]) -> usize {
    ENTRY_BYTES + texts.iter().map(|text| text.len()).sum::<usize>()
}

/// A member's names stand twice: with its group, and with its connection.
fn member_bytes(group: &str, client: &str) -> usize {
    entry_bytes(&[group, client, client])
}

impl Group {
    pub(crate) fn clients(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    pub(crate) fn subscription(&self, topic: &str) -> Option<&Subscription> {
        self.subscriptions.get(topic)
    }

    fn subscription_bytes(&self) -> usize {
        self.subscriptions.iter().map(|(topic, new)| entry_bytes(&[topic, &new.expression])).sum()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::tests::peers;

    fn wants(topic: &str) -> HashMap<String, Subscription> {
        [(topic.to_owned(), Subscription { expression: "*".to_owned(), version: 1 })].into()
    }

    fn tokens((group, told): &Changed) -> (&str, Vec<usize>) {
        (group, told.iter().map(|peer| peer.token.0).collect())
    }

    #[test]
    fn what_a_connection_had_goes_with_it_and_nothing_else() {
        let (mut table, peers) = (ConsumerTable::default(), peers(3));
        let told = |told: Vec<Arc<Peer>>| told.iter().map(|peer| peer.token.0).collect::<Vec<_>>();
        assert_eq!(told(table.register(("g", "a"), &peers[0], wants("t"))), [0]);
        assert_eq!(told(table.register(("g", "b"), &peers[1], wants("t"))), [0, 1]);
        let of_two = table.bytes();
        assert_eq!(told(table.register(("h", "a"), &peers[0], wants("t"))), [0]);
        assert!(told(table.register(("h", "a"), &peers[0], wants("t"))).is_empty());
        // The client has come again over another connection, before the old one was found gone.
        assert_eq!(told(table.register(("h", "a"), &peers[2], wants("u"))), [2]);
        let changed = table.forget(&peers[..1]);
        assert_eq!(changed.iter().map(tokens).collect::<Vec<_>>(), [("g", vec![1])]);
        assert_eq!(table.group("h").unwrap().clients().collect::<Vec<_>>(), ["a"]);
        assert!(table.remove(("h".to_owned(), "a".to_owned()), &peers[1]).is_none() && table.group("h").is_some());
        assert!(table.remove(("h".to_owned(), "a".to_owned()), &peers[2]).is_none() && table.group("h").is_none());
        table.register(("g", "a"), &peers[0], wants("t"));
        assert_eq!(table.bytes(), of_two);
        assert!(table.forget_silent(Duration::ZERO).is_empty());
        assert_eq!((table.bytes(), table.of_peer.len()), (0, 0));
    }

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
}
