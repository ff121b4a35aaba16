//! The example programs `import`, `inspect`, `load` and `quickstart`, run as processes.

#[path = "common/example.rs"]
mod example;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use example::example;

/// A file of the log, small so that few messages need several.
const LOG_FILE_BYTES: &str = "4096";

struct Store {
    _folder: TempDir,
    path: PathBuf,
}

impl Store {
    fn new() -> Self {
        let folder = TempDir::new().expect("a scratch folder can be made");
        let path = folder.path().join("the store");
        Self { _folder: folder, path }
    }

    fn import_command(&self) -> Command {
        let mut command = example("import");
        command.arg(&self.path).args(["--commit-log-file-bytes", LOG_FILE_BYTES, "--queue-file-entries", "10"]);
        command.args(["--index-slots", "20", "--index-entries", "40"]);
        command
    }

    /// Runs `import` with lines of input.
    fn import(&self, lines: &[String]) -> Output {
        let mut child = piped(&mut self.import_command());
        let mut input = child.stdin.take().expect("standard input is piped");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        // The program may stop reading at a bad line.
        let writing = std::thread::spawn(move || drop(input.write_all(text.as_bytes())));
        let output = child.wait_with_output().expect("import ends");
        writing.join().expect("writing the input does not panic");
        output
    }

    fn put(&self, messages: &[Value]) -> Vec<Value> {
        let lines: Vec<String> = messages.iter().map(Value::to_string).collect();
        let output = self.import(&lines);
        assert_eq!((status(&output), errors(&output).as_str()), (0, ""));
        objects(&output)
    }

    fn load(&self, arguments: &[&str]) -> Output {
        example("load").arg(&self.path).args(arguments).output().expect("load runs")
    }

    /// Runs `load ... --json` and returns the one object it printed.
    fn load_json(&self, arguments: &[&str]) -> Value {
        let output = self.load(&[arguments, &["--json"]].concat());
        assert_eq!((status(&output), errors(&output).as_str()), (0, ""), "load {arguments:?}");
        let mut objects = objects(&output);
        assert_eq!(objects.len(), 1, "load {arguments:?}");
        objects.remove(0)
    }

    fn inspect(&self, arguments: &[&str]) -> Output {
        example("inspect").arg(&self.path).args(arguments).output().expect("inspect runs")
    }

    /// Runs `inspect` for somebody who reads nothing of what it prints.
    fn inspect_unread(&self, arguments: &[&str]) -> Output {
        let mut child = piped(example("inspect").arg(&self.path).args(arguments));
        drop(child.stdout.take());
        child.wait_with_output().expect("inspect ends")
    }

    /// Runs `inspect ... --json` and returns what it printed; nothing may stand on standard error.
    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.inspect(&[arguments, &["--json"]].concat());
        assert_eq!((status(&output), errors(&output).as_str()), (0, ""), "inspect {arguments:?}");
        objects(&output)
    }

    /// Changes one byte of the log.
    fn flip(&self, log_offset: u64) {
        let file_bytes: u64 = LOG_FILE_BYTES.parse().expect("a number");
        let file = self.path.join(format!("commitlog/{:020}", log_offset / file_bytes * file_bytes));
        let mut bytes = fs::read(&file).expect("the log file can be read");
        bytes[usize::try_from(log_offset % file_bytes).expect("log files are small")] ^= 1;
        fs::write(&file, bytes).expect("the log file can be written");
    }
}

fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("the program exits")
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are UTF-8")
}

/// Standard output as JSON lines, and nothing else.
fn objects(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("JSON is UTF-8");
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is not whole: {text}");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn offset(acknowledgement: &Value) -> u64 {
    acknowledgement["log_offset"].as_u64().expect("an acknowledgement has a log offset")
}

fn order(number: usize) -> Value {
    json!({"topic": "orders", "queue_id": 0, "body": format!("order {number}"), "keys": [format!("o-{number}")]})
}

fn orders(count: usize) -> Vec<Value> {
    (0..count).map(order).collect()
}

#[test]
fn every_field_comes_back_as_it_was_put() {
    let store = Store::new();
    let message = json!({
        "topic": "Bestellungen-ü", "queue_id": 3, "body": "größer als 0 €", "tags": "bezahlt", "keys": ["k1", "schlüssel"],
        "properties": {"colour": "blue", "größe": "XL"}, "flag": -7, "sys_flag": 2, "born_ms": 1_700_000_000_123_i64,
        "born_host": "192.168.1.2:54321", "store_host": "10.0.0.1:10911", "reconsume_times": 4,
        "prepared_transaction_offset": 12_345_678_901_i64,
    });
    let put = store.put(std::slice::from_ref(&message));
    let [record] = &store.json(&["log"])[..] else { panic!("one record was put") };
    let same = ["topic", "queue_id", "flag", "sys_flag", "born_ms", "born_host", "store_host", "reconsume_times"];
    for field in same.iter().chain(&["prepared_transaction_offset"]) {
        assert_eq!(record[field], message[field], "{field}");
    }
    for field in ["log_offset", "queue_offset", "record_bytes", "message_id"] {
        assert_eq!(record[field], put[0][field], "{field}");
    }
    let hex: String = "größer als 0 €".bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(record["body_hex"], hex);
    let properties = record["properties"].as_object().expect("properties are an object");
    assert_eq!(properties["KEYS"], "k1 schlüssel");
    assert_eq!(properties["TAGS"], "bezahlt");
    assert_eq!((&properties["colour"], &properties["größe"]), (&json!("blue"), &json!("XL")));
    assert_eq!(record["magic"], "v1");
    assert!(record["store_ms"].as_i64() > Some(1_700_000_000_123));
    assert_eq!(record["message_id"], "0A00000100002A9F0000000000000000");
}

#[test]
fn bodies_of_any_bytes_are_given_in_hex() {
    let store = Store::new();
    let bodies = ["", "00", "ff00FE", "c3", "0d0a"];
    let messages: Vec<Value> = bodies.iter().map(|body| json!({"topic": "t", "body_hex": body})).collect();
    store.put(&messages);
    let found: Vec<Value> = store.json(&["log"]).into_iter().map(|record| record["body_hex"].clone()).collect();
    assert_eq!(found, ["", "00", "ff00fe", "c3", "0d0a"]);
}

#[test]
fn ipv6_hosts_stand_in_brackets_and_are_shortened() {
    let store = Store::new();
    let hosts = ["[2001:0db8:0000:0000:0001:0000:0000:0001]:8080", "[::1]:1", "1.2.3.4:65535", "[::]:0"];
    let messages = hosts.map(|host| json!({"topic": "t", "born_host": host, "store_host": host}));
    let put = store.put(&messages);
    let records = store.json(&["log"]);
    let shortened = ["[2001:db8::1:0:0:1]:8080", "[::1]:1", "1.2.3.4:65535", "[::]:0"];
    for ((record, host), put) in records.iter().zip(shortened).zip(&put) {
        assert_eq!((&record["born_host"], &record["store_host"]), (&json!(host), &json!(host)));
        let id = put["message_id"].as_str().expect("an id is text");
        assert_eq!(id.len(), if host.starts_with('[') { 56 } else { 32 });
        assert_eq!(store.json(&["msg", id]), std::slice::from_ref(record));
    }
    assert_eq!(records.len(), hosts.len());
}

#[test]
fn an_array_is_a_batch_and_is_acknowledged_as_one() {
    let store = Store::new();
    let put = store.put(&[order(0), json!([order(1), order(2), order(3)]), order(4)]);
    let [first, Value::Array(batch), last] = &put[..] else { panic!("three lines were put: {put:?}") };
    let offsets: Vec<u64> = [first]
        .into_iter()
        .chain(batch)
        .chain([last])
        .map(|one| one["queue_offset"].as_u64().expect("a number"))
        .collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
    let keys: Vec<Value> = store.json(&["log"]).iter().map(|record| record["properties"]["KEYS"].clone()).collect();
    assert_eq!(keys, ["o-0", "o-1", "o-2", "o-3", "o-4"]);
}

/// The scan had nothing to meet, and so nothing was said.
#[test]
fn a_log_whose_files_are_gone_is_damage() {
    let store = Store::new();
    store.put(&orders(3));
    for file in fs::read_dir(store.path.join("commitlog")).expect("there is a log") {
        fs::remove_file(file.expect("it can be listed").path()).expect("a log file can be removed");
    }
    let output = store.inspect(&["log"]);
    assert_eq!(status(&output), 0);
    assert!(errors(&output).contains("the log ends before what was durable"), "{}", errors(&output));
}

#[test]
fn what_inspect_prints_can_be_imported() {
    let (store, other) = (Store::new(), Store::new());
    store.put(&orders(30));
    let records = store.json(&["log"]);
    other.put(&records);
    let fields = |records: &[Value]| -> Vec<_> {
        records
            .iter()
            .map(|record| [&record["body_hex"], &record["born_ms"], &record["queue_offset"]].map(Value::clone))
            .collect()
    };
    assert_eq!(fields(&other.json(&["log"])), fields(&records));
}

#[test]
fn no_input_opens_and_closes() {
    let store = Store::new();
    let output = store.import(&[]);
    assert_eq!((status(&output), output.stdout.len(), errors(&output).as_str()), (0, 0, ""));
    assert_eq!(store.json(&["log"]), [] as [Value; 0]);
    store.put(&orders(3));
    assert_eq!(status(&store.import(&[])), 0);
    assert_eq!(store.json(&["log"]).len(), 3);
}

#[test]
fn a_bad_line_ends_the_import_and_keeps_what_was_acknowledged() {
    let cases = [
        ("{\"topic\": \"t\"", "line 3: "),
        ("7", "line 3: column 1: invalid type"),
        ("[]", "line 3: an empty batch"),
        ("{\"topic\": \"t\"} x", "line 3: column 16: trailing characters"),
        ("{\"body\": \"x\"}", "line 3: column 13: missing field `topic`"),
        ("{\"topic\": \"t\", \"colour\": null}", "colour: unknown field"),
        ("{\"topic\": \"t\", \"flag\": 1, \"flag\": 1}", "duplicate field `flag`"),
        ("{\"topic\": \"t\", \"properties\": {\"a\": \"1\", \"a\": \"2\"}}", "duplicate property `a`"),
        ("{\"topic\": \"t\", \"keys\": [\"a\"], \"properties\": {\"KEYS\": \"b\"}}", "keys and the property KEYS"),
        ("{\"topic\": \"t\", \"tags\": \"a\", \"properties\": {\"TAGS\": \"b\"}}", "tags and the property TAGS"),
        ("{\"topic\": \"t\", \"born_host\": \"[fe80::1%1]:80\"}", "line 3: born_host: the scope"),
        ("{\"topic\": \"t\", \"body\": \"x\", \"body_hex\": \"00\"}", "line 3: body and body_hex"),
        ("{\"topic\": \"t\", \"body_hex\": \"0\"}", "line 3: body_hex: "),
        ("{\"topic\": \"t\", \"body_hex\": \"0ü\"}", "line 3: body_hex: "),
        ("{\"topic\": \"t\", \"flag\": 3000000000}", "column 33: flag: invalid value"),
        ("{\"topic\": \"t\", \"born_host\": \"localhost\"}", "born_host: "),
        ("{\"topic\": \"t\", \"keys\": \"k\"}", "keys: invalid type"),
        ("{\"topic\": \"t\", \"properties\": {\"a\": 1}}", "properties.a: invalid type"),
        ("{\"topic\": \"a/b\"}", "line 3: "),
        ("[{\"topic\": \"t\"}, {\"topic\": \"..\"}]", "line 3: "),
        ("[[\"t\", 0, \"b\"]]", "[0]: invalid type: sequence"),
    ];
    for (bad, message) in cases {
        let store = Store::new();
        let output = store.import(&[order(0).to_string(), String::new(), bad.to_owned(), order(1).to_string()]);
        assert_eq!(status(&output), 1, "{bad}");
        assert!(errors(&output).contains(message), "{bad}: {}", errors(&output));
        assert_eq!(objects(&output).len(), 1, "{bad}");
        assert_eq!(store.json(&["log"]).len(), 1, "{bad}");
        store.put(&[order(2)]);
        assert_eq!(store.json(&["log"]).len(), 2, "{bad}");
    }
}

#[test]
fn a_wrong_command_line_is_status_2() {
    let store = Store::new();
    store.put(&orders(1));
    let path = store.path.to_str().expect("the scratch folder is UTF-8");
    let imports: [&[&str]; 9] = [
        &[],
        &[path, "more"],
        &[path, "--flush"],
        &[path, "--flush", "never"],
        &[path, "--record-crc", "yes"],
        &[path, "--index-slots", "-1"],
        &[path, "--colour", "blue"],
        &[path, "--commit-log-file-bytes", "5"],
        &[path, "--index-entries", "1"],
    ];
    let inspects: [&[&str]; 13] = [
        &[],
        &[path, "show"],
        &[path, "queue", "orders"],
        &[path, "queue", "orders", "first"],
        &[path, "log", "more"],
        &[path, "key", "orders"],
        &[path, "msg"],
        &[path, "log", "--from"],
        &[path, "log", "--from", "-1"],
        &[path, "log", "-n", "x"],
        &[path, "log", "--begin", "now"],
        &[path, "log", "--colour"],
        &[path, "verify", "-n", "1"],
    ];
    let loads: [&[&str]; 18] = [
        &[],
        &[path, "more"],
        &[path, "--producers"],
        &[path, "--producers", "0"],
        &[path, "--producers", "many"],
        &[path, "--body", "-1"],
        &[path, "--body", "5000000"],
        &[path, "--flush", "never"],
        &[path, "--seconds", "0"],
        &[path, "--seconds", "-1"],
        &[path, "--seconds", "NaN"],
        &[path, "--seconds", "1e300"],
        &[path, "--messages", "0"],
        &[path, "--messages", "1", "--seconds", "1"],
        &[path, "--queues", "0"],
        &[path, "--read", "backwards"],
        &[path, "--json", "yes"],
        &[path, "--colour"],
    ];
    let imports = imports.map(|arguments| ("import", arguments)).into_iter();
    let inspects = inspects.map(|arguments| ("inspect", arguments));
    for (name, arguments) in imports.chain(inspects).chain(loads.map(|arguments| ("load", arguments))) {
        let output = example(name).args(arguments).stdin(Stdio::null()).output().expect("the program runs");
        assert_eq!((status(&output), output.stdout.len()), (2, 0), "{name} {arguments:?}");
        assert!(errors(&output).contains("usage: "), "{name} {arguments:?}: {}", errors(&output));
    }
}

#[test]
fn a_store_that_is_not_there_is_status_2_and_is_not_made() {
    let store = Store::new();
    for arguments in [&[][..], &["log"], &["verify"], &["queue", "t", "0"], &["key", "t", "k"]] {
        let output = store.inspect(arguments);
        assert_eq!((status(&output), output.stdout.len()), (2, 0), "{arguments:?}");
        assert!(!errors(&output).is_empty(), "{arguments:?}");
        assert!(!store.path.exists(), "{arguments:?}");
    }
    store.put(&orders(1));
    let plain = store.path.with_extension("txt");
    fs::write(&plain, "no store").expect("a file can be made");
    // A device was taken for an empty store, and what could not be listed in it for a failed output.
    for path in [plain.as_path(), "/dev/null".as_ref()] {
        for command in ["summary", "log", "verify"] {
            let output = example("inspect").arg(path).arg(command).output().expect("inspect runs");
            assert_eq!((status(&output), output.stdout.len()), (2, 0), "{} is no store: {command}", path.display());
            assert!(errors(&output).contains("no folder with a store"), "{command}: {}", errors(&output));
        }
    }
    let unknown = store.inspect(&["msg", "0A00000100002A9F00000000000F0000"]);
    assert_eq!((status(&unknown), unknown.stdout.len()), (2, 0));
}

#[test]
fn queues_show_their_entries() {
    let store = Store::new();
    let messages: Vec<Value> =
        (0..45).map(|number| json!({"topic": "t", "queue_id": number % 2, "tags": "TagA", "body": "x"})).collect();
    let put = store.put(&messages);
    let entries = store.json(&["queue", "t", "1"]);
    assert_eq!(entries.len(), 22);
    for (number, entry) in entries.iter().enumerate() {
        let put = &put[2 * number + 1];
        // The hash of "TagA", as Java computes it.
        let expected = json!({"queue_offset": number, "log_offset": put["log_offset"],
            "record_bytes": put["record_bytes"], "tags_code": 2_598_919});
        assert_eq!(*entry, expected);
    }
    assert_eq!(store.json(&["queue", "t", "1", "--from", "9", "-n", "4"]), entries[9..13]);
    assert_eq!(store.json(&["queue", "t", "1", "--from", "22"]), [] as [Value; 0]);
    assert_eq!(store.json(&["queue", "t", "7"]), [] as [Value; 0]);
    assert_eq!(store.json(&["queue", "nothing", "0"]), [] as [Value; 0]);
}

#[test]
fn a_key_shows_its_records_newest_first() {
    let store = Store::new();
    let messages: Vec<Value> = (0..100)
        .map(|number| json!({"topic": "t", "keys": [format!("k{}", number % 3), "all"], "body": format!("{number}")}))
        .collect();
    store.put(&messages);
    let mut records = store.json(&["log"]);
    records.reverse();
    assert_eq!(store.json(&["key", "t", "all"]), records);
    assert_eq!(store.json(&["key", "t", "all", "-n", "7"]), records[..7]);
    let third: Vec<Value> = records.iter().step_by(3).cloned().collect();
    assert_eq!(store.json(&["key", "t", "k0"]), third);
    assert_eq!(store.json(&["key", "t", "k"]), [] as [Value; 0]);
    assert_eq!(store.json(&["key", "u", "all"]), [] as [Value; 0]);
}

#[test]
fn from_and_count_cut_the_log() {
    let store = Store::new();
    let put = store.put(&orders(60));
    let all = store.json(&["log"]);
    let from = |offset: u64, more: &[&str]| store.json(&[&["log", "--from", &offset.to_string()], more].concat());
    assert_eq!(from(offset(&put[40]), &[]), all[40..]);
    assert_eq!(from(offset(&put[40]) + 1, &[]), all[41..], "inside of a record: the next one");
    assert_eq!(from(offset(&put[40]), &["-n", "3"]), all[40..43]);
    assert_eq!(from(0, &["-n", "0"]), [] as [Value; 0]);
    assert_eq!(from(1 << 40, &[]), [] as [Value; 0]);
    assert_eq!(from(0, &["-n", "1000"]), all);
}

#[test]
fn begin_and_end_cut_by_store_time() {
    let store = Store::new();
    for number in 0..4 {
        store.put(&[order(number)]);
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    let all = store.json(&["log"]);
    let times: Vec<String> = all.iter().map(|record| record["store_ms"].to_string()).collect();
    let middle = ["--begin", &times[1], "--end", &times[2]];
    assert_eq!(store.json(&[&["log"], &middle[..]].concat()), all[1..3], "both ends are included");
    assert_eq!(store.json(&["log", "--begin", &times[3]]), all[3..]);
    assert_eq!(store.json(&["log", "--end", &times[0]]), all[..1]);
    assert_eq!(store.json(&["key", "orders", "o-1", "--begin", &times[1], "--end", &times[1]]), all[1..2]);
    assert_eq!(store.json(&["key", "orders", "o-1", "--begin", &times[2]]), [] as [Value; 0]);
    let entries = store.json(&[&["queue", "orders", "0"], &middle[..]].concat());
    let offsets: Vec<&Value> = entries.iter().map(|entry| &entry["queue_offset"]).collect();
    assert_eq!(offsets, [1, 2]);
}

#[test]
fn the_summary_names_queues_and_the_log() {
    let store = Store::new();
    store.put(&orders(12));
    store.put(&[json!({"topic": "other", "queue_id": 5})]);
    let lines = store.json(&["summary"]);
    let end = store.json(&["log"]).last().map(|last| offset(last) + last["record_bytes"].as_u64().unwrap_or(0));
    assert_eq!((&lines[0]["log_start"], &lines[0]["log_end"]), (&json!(0), &json!(end)));
    assert!(lines.contains(&json!({"topic": "orders", "queue_id": 0, "min": 0, "max": 12})));
    assert!(lines.contains(&json!({"topic": "other", "queue_id": 5, "min": 0, "max": 1})));
    assert!(lines.iter().any(|line| line["folder"] == "commitlog"));
    let text = store.inspect(&[]);
    assert_eq!((status(&text), errors(&text).as_str()), (0, ""));
    let text = String::from_utf8(text.stdout).expect("the summary is UTF-8");
    assert!(["orders", "other", "commitlog", "none seen"].iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn tables_are_for_people() {
    let store = Store::new();
    let put = store.put(&[json!({"topic": "t", "keys": ["k"], "tags": "a", "body": "line one\nline two\u{1b}[2J"})]);
    let id = put[0]["message_id"].as_str().expect("an id is text");
    for arguments in [&["log"][..], &["queue", "t", "0"], &["msg", id], &["key", "t", "k"], &["verify"]] {
        let output = store.inspect(arguments);
        assert_eq!((status(&output), errors(&output).as_str()), (0, ""), "{arguments:?}");
        let text = String::from_utf8(output.stdout).expect("tables are UTF-8");
        assert!(!text.is_empty() && !text.contains('\u{1b}'), "{arguments:?}: {text}");
    }
}

#[test]
fn verify_is_status_1_where_something_is_damaged() {
    let store = Store::new();
    let put = store.put(&orders(40));
    let fine = store.json(&["verify"]);
    assert_eq!(fine, [json!({"records": 40, "queue_entries": 40, "index_entries": 40, "damages": 0})]);

    store.flip(offset(&put[17]) + 90);
    let damaged = store.inspect(&["verify", "--json"]);
    assert_eq!(status(&damaged), 1);
    let lines = objects(&damaged);
    let range = (json!(offset(&put[17])), json!(offset(&put[18])));
    assert!(lines.iter().any(|line| (line["start"].clone(), line["end"].clone()) == range), "{lines:?}");
    assert_eq!(status(&store.inspect(&["verify"])), 1);

    let log = store.inspect(&["log", "--json"]);
    assert_eq!(status(&log), 0, "only verify judges");
    assert_eq!(objects(&log).len(), 39);
    assert!(errors(&log).contains("damaged"), "{}", errors(&log));
    let key = store.inspect(&["key", "orders", "o-18", "--json"]);
    assert_eq!((status(&key), objects(&key).len()), (0, 1));
}

#[test]
fn import_refuses_a_damaged_log_and_leaves_it() {
    let store = Store::new();
    let put = store.put(&orders(20));
    // The last record's own bytes: what every opening looks at.
    store.flip(offset(&put[19]) + 90);
    let output = store.import(&[order(20).to_string()]);
    assert_eq!((status(&output), output.stdout.len()), (1, 0));
    assert!(errors(&output).contains("damaged"), "{}", errors(&output));
    store.flip(offset(&put[19]) + 90);
    store.put(&[order(20)]);
    assert_eq!(store.json(&["log"]).len(), 21);
}

/// An `import` that is fed line by line.
struct Feed {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Feed {
    fn start(store: &Store, more: &[&str]) -> Self {
        let mut child = piped(store.import_command().args(more));
        let answers = BufReader::new(child.stdout.take().expect("standard output is piped"));
        Self { child, answers }
    }

    /// Gives one message and waits for its acknowledgement.
    fn put(&mut self, message: &Value) -> Value {
        let input = self.child.stdin.as_mut().expect("standard input is piped");
        writeln!(input, "{message}").expect("import reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("import answers");
        serde_json::from_str(&answer).expect("the answer is JSON")
    }
}

#[test]
fn inspect_works_beside_a_running_import() {
    for flush in ["sync", "async"] {
        let store = Store::new();
        let mut feed = Feed::start(&store, &["--flush", flush]);
        for number in 0..50 {
            feed.put(&order(number));
            if number % 7 == 0 {
                let records = store.json(&["log"]);
                assert_eq!(records.len(), number + 1, "{flush}: what was acknowledged is shown");
            }
        }
        assert_eq!(store.json(&["queue", "orders", "0"]).len(), 50, "{flush}");
        assert_eq!(store.json(&["key", "orders", "o-49"]).len(), 1, "{flush}");
        assert_eq!(status(&store.import(&[])), 1, "{flush}: a second writer is refused");
        drop(feed.child.stdin.take());
        assert!(feed.child.wait().expect("import ends").success(), "{flush}");
        assert_eq!(store.json(&["verify"])[0]["damages"], 0, "{flush}");
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    for flush in ["sync", "async"] {
        let store = Store::new();
        let mut feed = Feed::start(&store, &["--flush", flush]);
        let put: Vec<Value> = orders(60).iter().map(|message| feed.put(message)).collect();
        feed.child.kill().expect("import can be killed");
        feed.child.wait().expect("import ends");
        assert_eq!(store.json(&["log"]).len(), put.len(), "{flush}: before anything opened it");
        assert_eq!(status(&store.import(&[])), 0, "{flush}");
        let records = store.json(&["log"]);
        for (record, put) in records.iter().zip(&put) {
            assert_eq!(record["log_offset"], put["log_offset"], "{flush}");
        }
        assert_eq!(records.len(), put.len(), "{flush}");
        assert_eq!(store.json(&["queue", "orders", "0"]).len(), put.len(), "{flush}");
        assert_eq!(store.json(&["verify"])[0]["damages"], 0, "{flush}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let store = Store::new();
    store.put(&orders(500));
    for arguments in [&["log"][..], &["log", "--json"], &["summary"], &["verify"]] {
        let output = store.inspect_unread(arguments);
        assert_eq!((status(&output), errors(&output).as_str()), (0, ""), "{arguments:?}");
    }
}

/// Who read only the first lines that `verify` printed learned from its exit status that nothing was damaged.
#[test]
fn a_reader_that_goes_away_learns_of_damage_all_the_same() {
    let store = Store::new();
    let put = store.put(&orders(500));
    put.iter().step_by(2).for_each(|put| store.flip(offset(put) + 90));
    for arguments in [&["verify"][..], &["verify", "--json"]] {
        let output = store.inspect_unread(arguments);
        assert_eq!((status(&output), errors(&output).as_str()), (1, ""), "{arguments:?}");
    }
}

/// Queues and index know nothing of records that the opening found damaged, and who asked for them heard nothing of the
/// damage either.
#[test]
fn who_asks_for_a_queue_or_a_key_hears_of_damage() {
    let store = Store::new();
    let put = store.put(&orders(20));
    store.flip(offset(&put[7]) + 90);
    // Everything is looked at.
    fs::remove_dir_all(store.path.join("mqlog")).expect("the folder can be removed");
    let damaged = format!("{}..{}", offset(&put[7]), offset(&put[8]));
    for (arguments, shown) in [(&["queue", "orders", "0"], 19), (&["key", "orders", "o-7"], 0)] {
        for more in [&[][..], &["--json"]] {
            let output = store.inspect(&[&arguments[..], more].concat());
            assert_eq!(status(&output), 0, "only verify judges");
            assert_eq!(errors(&output).matches(&damaged).count(), 1, "{arguments:?}: {}", errors(&output));
            if !more.is_empty() {
                assert_eq!(objects(&output).len(), shown, "{arguments:?}");
            }
        }
    }
}

#[test]
fn record_crc_and_sizes_are_options() {
    let store = Store::new();
    for (setting, has_crc) in [("on", true), ("off", false)] {
        let mut feed = Feed::start(&store, &["--record-crc", setting]);
        feed.put(&order(0));
        drop(feed.child.stdin.take());
        assert!(feed.child.wait().expect("import ends").success());
        let record = store.json(&["log"]).pop().expect("a record was put");
        assert_eq!(record["properties"].get("__CRC32#").is_some(), has_crc, "--record-crc {setting}");
    }
    let file = store.path.join(format!("commitlog/{:020}", 0));
    assert_eq!(fs::metadata(file).expect("the log has a first file").len().to_string(), LOG_FILE_BYTES);
    let queue = store.path.join(format!("consumequeue/orders/0/{:020}", 0));
    assert_eq!(fs::metadata(queue).expect("the queue has a first file").len(), 10 * 20);
    let index = fs::read_dir(store.path.join("index")).expect("the store has an index");
    let lengths: Vec<u64> = index.map(|file| file.expect("listed").metadata().expect("there").len()).collect();
    assert_eq!(lengths, [40 + 20 * 4 + 40 * 20]);
}

#[test]
fn the_quickstart_runs() {
    let output = example("quickstart").output().expect("quickstart runs");
    assert_eq!((status(&output), errors(&output).as_str()), (0, ""));
    let text = String::from_utf8(output.stdout).expect("it prints UTF-8");
    assert!(text.contains("order o-17 is paid") && text.contains("offsets 0 to 2"), "{text}");
}

/// Every figure of `load --json` is there, and none contradicts another.
fn check_load(report: &Value, messages: u64, has_limit: bool) {
    let number = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("{name} of {report}"));
    assert_eq!(report["messages"], messages, "{report}");
    let (seconds, rate) = (number("seconds"), number("msgs_per_s"));
    assert!(seconds > 0.0 && (rate * seconds / messages as f64 - 1.0).abs() < 0.01, "{report}");
    let latencies = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"].map(number);
    assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{report}");
    assert!(number("mb_per_s") >= 0.0 && number("syncs") >= 0.0);
    if has_limit {
        let ratio = rate / number("limit_msgs_per_s");
        assert!((number("ratio") / ratio - 1.0).abs() < 0.01, "{report}");
    } else {
        assert_eq!((&report["limit_msgs_per_s"], &report["ratio"]), (&Value::Null, &Value::Null));
    }
}

/// The names in the folder that the store is in.
fn beside(store: &Store) -> Vec<std::ffi::OsString> {
    let folder = store.path.parent().expect("the store is in a folder");
    fs::read_dir(folder).expect("the folder can be read").map(|entry| entry.expect("listed").file_name()).collect()
}

#[test]
fn load_puts_as_many_messages_as_it_was_told() {
    let store = Store::new();
    let load = ["--messages", "1001", "--producers", "3", "--queues", "2", "--body", "100", "--keys"];
    check_load(&store.load_json(&load), 1001, false);
    let records = store.json(&["log"]);
    assert_eq!(records.len(), 1001);
    assert!(records.iter().all(|record| record["topic"] == "load" && record["body_hex"].to_string().len() == 202));
    let keys: std::collections::BTreeSet<String> =
        records.iter().map(|record| record["properties"]["KEYS"].to_string()).collect();
    assert_eq!(keys.len(), 1001, "each has a key of its own");
    let key = records[500]["properties"]["KEYS"].as_str().expect("a key is text");
    assert_eq!(store.json(&["key", "load", key]), records[500..501]);
    // Of 334, 334 and 333 messages every second one, the first included, is in queue 0.
    assert_eq!(store.json(&["queue", "load", "0"]).len(), 501);
    assert_eq!(store.json(&["queue", "load", "1"]).len(), 500);
    assert_eq!(store.json(&["verify"])[0]["damages"], 0);
}

#[test]
fn load_appends_to_a_store_and_leaves_its_sizes() {
    let store = Store::new();
    store.put(&orders(5));
    check_load(&store.load_json(&["--messages", "20", "--body", "0", "--flush", "sync"]), 20, false);
    assert_eq!(store.json(&["log"]).len(), 25);
    assert_eq!(store.json(&["log"])[24]["properties"].get("KEYS"), None);
    let file = store.path.join(format!("commitlog/{:020}", 0));
    assert_eq!(fs::metadata(file).expect("the log has a first file").len().to_string(), LOG_FILE_BYTES);
}

#[test]
fn load_ends_when_its_seconds_are_over() {
    let store = Store::new();
    let report = store.load_json(&["--seconds", "0.2", "--producers", "2", "--flush", "sync"]);
    let messages = report["messages"].as_u64().expect("a number");
    check_load(&report, messages, false);
    assert!(report["seconds"].as_f64() >= Some(0.2), "{report}");
    assert!((1..=messages).contains(&report["syncs"].as_u64().expect("a number")), "{report}");
    assert_eq!(store.json(&["log"]).len() as u64, messages);
}

#[test]
fn load_reads_what_is_there_and_puts_only_into_an_empty_store() {
    let store = Store::new();
    for (order, messages) in [("seq", 700), ("random", 1500), ("seq", 3)] {
        let load = ["--messages", &messages.to_string(), "--queues", "3", "--read", order];
        check_load(&store.load_json(&load), messages, false);
        assert_eq!(store.json(&["log"]).len(), 700, "{order}: only the first one put");
    }
    let text = store.load(&["--seconds", "0.05", "--read", "seq"]);
    assert_eq!((status(&text), errors(&text).as_str()), (0, ""));
    assert!(String::from_utf8_lossy(&text.stdout).contains("read in sequence, bodies of 1024 bytes"));
}

#[test]
fn load_says_in_words_what_json_says_in_fields() {
    let store = Store::new();
    let output = store.load(&["--messages", "100", "--body", "10", "--keys"]);
    assert_eq!((status(&output), errors(&output).as_str()), (0, ""), "no bar where there is no terminal");
    let text = String::from_utf8(output.stdout).expect("the report is UTF-8");
    let words =
        ["put async, 1 producer, 1 queue, bodies of 10 bytes, one key each", "100 messages in", "syncs of the log"];
    for word in words.iter().chain(&["p50 ", "p90 ", "p99 ", "p99.9 ", "max "]) {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("limit"), "{text}");
}

#[test]
fn load_measures_the_limit_of_puts_beside_the_store() {
    for (flush, producers, row) in [("async", "2", "L1"), ("sync", "1", "L3"), ("sync", "3", "L4")] {
        let store = Store::new();
        let load = ["--messages", "50", "--flush", flush, "--producers", producers, "--limit"];
        check_load(&store.load_json(&load), 50, true);
        assert_eq!(beside(&store), ["the store"], "{row}: its files are removed");
        let text = store.load(&load);
        assert!(String::from_utf8_lossy(&text.stdout).contains(&format!("limit {row}, ")), "{row}");
    }
}

#[test]
fn load_measures_the_limit_of_reads() {
    for order in ["seq", "random"] {
        let store = Store::new();
        check_load(&store.load_json(&["--messages", "300", "--read", order, "--limit"]), 300, true);
        assert_eq!(beside(&store), ["the store"], "{order}: its files are removed");
    }
}

#[test]
fn load_makes_a_store_of_a_brokers_sizes() {
    let store = Store::new();
    check_load(&store.load_json(&["--messages", "5", "--keys", "--rocketmq-sizes"]), 5, false);
    let length = |file: PathBuf| fs::metadata(file).expect("the file is there").len();
    assert_eq!(length(store.path.join(format!("commitlog/{:020}", 0))), 1 << 30);
    assert_eq!(length(store.path.join(format!("consumequeue/load/0/{:020}", 0))), 6_000_000);
}

#[test]
fn load_cannot_use_a_folder_that_is_none_or_taken() {
    let store = Store::new();
    fs::write(&store.path, "a file").expect("the file can be written");
    let output = store.load(&["--messages", "1"]);
    assert_eq!((status(&output), output.stdout.len()), (1, 0));
    assert!(errors(&output).starts_with("load: "), "{}", errors(&output));

    let store = Store::new();
    let mut feed = Feed::start(&store, &[]);
    feed.put(&order(0));
    for arguments in [&["--messages", "1"][..], &["--messages", "1", "--read", "seq", "--limit"]] {
        let output = store.load(arguments);
        assert_eq!((status(&output), output.stdout.len()), (1, 0), "a second writer is refused");
        assert!(errors(&output).starts_with("load: "), "{}", errors(&output));
    }
    drop(feed.child.stdin.take());
    assert!(feed.child.wait().expect("import ends").success());
    assert_eq!(beside(&store), ["the store"]);
}
