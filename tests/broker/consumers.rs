//! Groups: heartbeats, lists, notices.

use std::time::Duration;

use serde_json::{Value, json};

use crate::Scene;
use crate::client::{Client, LIMIT, pull_fields};

fn heartbeat(client: &mut Client, id: &str, subscriptions: &[(&str, &str)], version: i64) {
    let subscriptions: Vec<Value> = subscriptions
        .iter()
        .map(|(topic, expression)| json!({"topic": topic, "subString": expression, "subVersion": version, "codeSet": [0]}))
        .collect();
    let body = json!({"clientID": id, "consumerDataSet": [{
        "groupName": "g", "consumeType": 1, "messageModel": "CLUSTERING", "consumeFromWhere": 0,
        "subscriptionDataSet": subscriptions, "unitMode": false,
    }], "producerDataSet": [{"groupName": "p"}], "heartbeatFingerprint": 0, "withoutSub": false});
    let answer = client.call(34, &[], format!("{body}\n").as_bytes());
    assert_eq!(answer.code, 0, "{}", answer.remark);
    assert!(answer.fields.is_empty(), "fields here would make clients leave their subscriptions out");
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
