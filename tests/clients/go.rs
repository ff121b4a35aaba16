//! RocketMQ's Go client, where there is a Go toolchain and its modules can be had.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::program::run;
use crate::scene::Site;
use crate::{say, turn};

/// Messages in each of the two ways.
const EACH: usize = 200;

/// Builds the program; says why if that is not possible here.
fn build(folder: &Path) -> Result<Command, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/go");
    let program = folder.join("client");
    let go = |words: &[&str]| {
        let mut go = Command::new("go");
        go.current_dir(&source).args(words);
        go
    };
    let has_go =
        go(&["version"]).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !has_go {
        return Err("there is no Go toolchain (go)".to_owned());
    }
    run(&mut go(&["mod", "download"]), folder)?.ok().map_err(|error| format!("its modules cannot be had: {error}"))?;
    // From here on nothing is a reason to skip it.
    run(go(&["build", "-o"]).arg(&program).arg("."), folder).and_then(crate::program::Output::ok).unwrap();
    Ok(Command::new(program))
}

#[test]
fn the_go_client_sends_and_consumes() {
    let test = "the Go client";
    let Some(_turn) = turn(test) else { return };
    let (site, folder) = (Site::new(&[]), TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let mut client = match build(folder.path()) {
        Ok(client) => client,
        Err(reason) => return say(&format!("skipped {test}: {reason}")),
    };
    client.args([&site.namesrv(), "go", &EACH.to_string()]);
    let printed = run(&mut client, folder.path()).and_then(crate::program::Output::ok).unwrap();
    let lines = |word: &str| {
        let mut texts: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix(word)).collect();
        texts.sort_unstable();
        texts
    };
    let texts = |how: &str| (0..EACH).map(|number| format!("{how}-{number}")).collect::<Vec<_>>();
    let (mut acknowledged, mut sent) = (texts("sync"), [texts("sync"), texts("oneway")].concat());
    acknowledged.sort_unstable();
    sent.sort_unstable();
    assert_eq!(lines("acknowledged "), acknowledged);
    let received = lines("received ");
    assert!(received == sent, "each message once: {} of {}, such as {:?}", received.len(), sent.len(), received.last());
    say(&format!("Go: {} sent, {EACH} of them one-way, {} acknowledged, {} received", sent.len(), EACH, sent.len()));
}
