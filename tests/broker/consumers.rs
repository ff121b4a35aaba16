//! Groups: heartbeats, lists, notices.

use std::time::Duration;

use serde_json::{Value, json};

use crate::Scene;
use crate::client::{Client, LIMIT, pull_fields};

fn heartbeat(client: &mut Client, id: &str, subscriptions: &[(&str, &str)], version: i64) {
    let answer = client.call(34, &[], &heartbeat_of(id, &["g"], subscriptions, version));
    assert_eq!(answer.code, 0, "{}", answer.remark);
    assert!(answer.fields.is_empty(), "fields here would make clients leave their subscriptions out");
}

/// A heartbeat's body: each group subscribes to the same.
pub(crate) fn heartbeat_of(id: &str, groups: &[&str], subscriptions: &[(&str, &str)], version: i64) -> Vec<u8> {
    let subscriptions: Vec<Value> = subscriptions
        .iter()
        .map(|(topic, expression)| json!({"topic": topic, "subString": expression, "subVersion": version, "codeSet": [0]}))
        .collect();
    let group = |name: &&str| {
        json!({"groupName": name, "consumeType": 1, "messageModel": "CLUSTERING", "consumeFromWhere": 0,
            "subscriptionDataSet": subscriptions, "unitMode": false})
    };
    let groups: Vec<Value> = groups.iter().map(group).collect();
    let body = json!({"clientID": id, "consumerDataSet": groups, "producerDataSet": [{"groupName": "p"}],
        "heartbeatFingerprint": 0, "withoutSub": false});
    format!("{body}\n").into_bytes()
}

fn list(client: &mut Client) -> Result<Value, i64> {
    let answer = client.call(38, &[("consumerGroup", "g")], b"");
    if answer.code == 0 { Ok(answer.json()["consumerIdList"].clone()) } else { Err(answer.code) }
}

/// How many notices of a changed group came within a short time.
fn notices(client: &mut Client) -> usize {
    let mut count = 0;
    while let Some(notice) = client.wait_for(Duration::from_secs(1), |frame| frame.code == 40) {
        assert_eq!((notice.flag, notice.fields["consumerGroup"].as_str()), (2, "g"));
        count += 1;
    }
    count
}

#[test]
fn members_see_each_other_come_and_go() {
    let scene = Scene::new(&[]);
    let (mut one, mut two) = (scene.client(), scene.client());
    assert_eq!(list(&mut one), Err(1));
    heartbeat(&mut one, "one", &[("T", "*")], 1);
    heartbeat(&mut two, "two", &[("T", "*")], 1);
    assert_eq!(list(&mut one), Ok(json!(["one", "two"])));
    assert_eq!((notices(&mut one), notices(&mut two)), (2, 1));
    heartbeat(&mut one, "one", &[("T", "*")], 1);
    assert_eq!((notices(&mut one), notices(&mut two)), (0, 0), "nothing has changed");
    heartbeat(&mut one, "one", &[("T", "*"), ("U", "*")], 2);
    assert_eq!((notices(&mut one), notices(&mut two)), (1, 1), "the group subscribes to more");
    drop(two);
    assert!(one.wait_for(LIMIT, |frame| frame.code == 40).is_some());
    assert_eq!(list(&mut one), Ok(json!(["one"])));
    assert_eq!(one.call(35, &[("clientID", "one"), ("consumerGroup", "g"), ("producerGroup", "p")], b"").code, 0);
    assert_eq!(list(&mut one), Err(1));
    assert_eq!(one.call(105, &[("topic", "%RETRY%g")], b"").code, 0);
    for bad in [&b"{"[..], b"{}", b"[]", br#"{"clientID":"x","consumerDataSet":[{}]}"#] {
        assert_eq!(one.call(34, &[], bad).code, 1);
    }
}

#[test]
fn a_pull_without_a_subscription_takes_its_groups() {
    let scene = Scene::new(&[]);
    let mut client = scene.client();
    crate::send(&mut client, "T", "0", "TAGS\u{1}a", b"a");
    crate::send(&mut client, "T", "0", "TAGS\u{1}b", b"b");
    let pull = |client: &mut Client, version| {
        let mut fields = pull_fields("T", ("0", "0"), "", "0");
        fields[0].1 = "g";
        fields[5].1 = "2";
        fields[9].1 = version;
        client.call(11, &fields, b"")
    };
    assert_eq!(pull(&mut client, "1").code, 24);
    heartbeat(&mut client, "one", &[("T", "b")], 1);
    assert_eq!(crate::bodies(&pull(&mut client, "1")), [b"b"]);
    assert_eq!(pull(&mut client, "2").code, 25);
    heartbeat(&mut client, "one", &[("T", "a || b")], 2);
    assert_eq!(crate::bodies(&pull(&mut client, "2")), [b"a", b"b"]);
}

#[test]
fn what_is_kept_of_consumers_has_limits() {
    let scene = Scene::new(&["--max-subscription-bytes", "100", "--max-consumer-bytes", "20000"]);
    let mut client = scene.client();
    crate::send(&mut client, "T", "0", "", b"a");
    let (long, tags) = ("n".repeat(256), "a||".repeat(34));
    for (group, subscription, code) in [(&*long, "*", 1), ("g", &*tags, 23), ("g", "*", 0)] {
        assert_eq!(client.call(34, &[], &heartbeat_of("one", &[group], &[("T", subscription)], 1)).code, code);
    }
    assert_eq!(client.call(34, &[], &heartbeat_of(&long, &["g"], &[], 1)).code, 1);
    let mut fields = pull_fields("T", ("0", "0"), &tags, "0");
    assert_eq!(client.call(11, &fields, b"").code, 23);
    (fields[0].1, fields[5].1) = (&long, "2");
    assert_eq!(client.call(11, &fields, b"").code, 1);
    let committed =
        client.call(15, &[("consumerGroup", &*long), ("topic", "T"), ("queueId", "0"), ("commitOffset", "1")], b"");
    assert_eq!(committed.code, 1);

    let groups: Vec<String> = (0..1000).map(|number| format!("group-{number}")).collect();
    let mut many = scene.client();
    let mut join = |group: &str| many.call(34, &[], &heartbeat_of("many", &[group], &[("T", "*")], 1));
    let joined = groups.iter().take_while(|group| join(group).code == 0).count();
    assert!((10..40).contains(&joined), "{joined} groups of about 800 bytes");
    assert!(join(&groups[joined]).remark.contains("20000"));
    assert_eq!(join(&groups[0]).code, 0, "who is there stays");
    heartbeat(&mut client, "one", &[("T", "*")], 2);
    drop(many);
    // As much room as before, once the connection is seen to be gone.
    let mut again = scene.client();
    let begun = std::time::Instant::now();
    while again.call(34, &[], &heartbeat_of("again", &[&groups[joined]], &[("T", "*")], 1)).code != 0 {
        assert!(begun.elapsed() < LIMIT);
    }
}

#[test]
fn a_heartbeat_that_names_a_group_often_changes_it_once() {
    let scene = Scene::new(&[]);
    let (mut one, mut two) = (scene.client(), scene.client());
    heartbeat(&mut one, "one", &[("T", "*")], 1);
    let groups = ["g"; 1000];
    assert_eq!(two.call(34, &[], &heartbeat_of("two", &groups, &[("T", "*"), ("U", "*")], 2)).code, 0);
    assert_eq!((notices(&mut one), notices(&mut two)), (2, 1));
}

#[test]
fn large_answers_to_small_requests_all_come_when_they_are_read() {
    let scene = Scene::new(&["--max-queued-bytes", "100000"]);
    let mut client = scene.client();
    for number in 0..400 {
        heartbeat(&mut client, &format!("{number:0>200}"), &[("T", "*")], 1);
        notices_now(&mut client);
    }
    let asked: Vec<i64> = (0..300).map(|_| client.ask(38, &[("consumerGroup", "g")], b"")).collect();
    for opaque in asked {
        assert_eq!(client.answer(opaque).code, 0);
    }
    assert_eq!(client.call(38, &[("consumerGroup", "g")], b"").code, 0);
}

/// Reads the notices that are there.
fn notices_now(client: &mut Client) {
    while client.wait_for(Duration::from_millis(1), |frame| frame.code == 40).is_some() {}
}

/// The topic of a group's retries is named after it, and has a prefix. Once a topic's limit of 127 characters was its
/// limit, too: a group of 121 characters and more could not register, although clients allow 255.
#[test]
fn a_group_may_have_as_long_a_name_as_clients_allow() {
    let scene = Scene::new(&[]);
    let mut client = scene.client();
    let group = "g".repeat(255);
    let retry = format!("%RETRY%{group}");
    assert_eq!(client.call(105, &[("topic", &retry)], b"").code, 0);
    let answer = client.call(34, &[], &heartbeat_of("one", &[&group], &[("T", "*"), (&retry, "*")], 1));
    assert_eq!(answer.code, 0, "{}", answer.remark);
    let listed = client.call(38, &[("consumerGroup", &group)], b"");
    assert_eq!(listed.json()["consumerIdList"], json!(["one"]));
    let mut fields = pull_fields(&retry, ("0", "0"), "*", "0");
    fields[0].1 = &group;
    assert_eq!(client.call(11, &fields, b"").code, 19);
    assert_eq!(
        client.call(310, &crate::client::send_fields(&retry, "0", ""), b"x").code,
        29,
        "records have no room for it"
    );
    assert_eq!(client.call(105, &[("topic", &format!("{retry}g"))], b"").code, 29);
}
