//! RocketMQ's Java classes: fetched and compiled by Maven, for the suites that run beside them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::program::{run, text};

/// A version of RocketMQ, and the end of its module's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V498,
    V533,
}

impl Version {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V498 => "4.9.8",
            Self::V533 => "5.3.3",
        }
    }
}

/// Whether a suite is to run, which its variable says; if not, that is said.
pub(crate) fn enabled(suite: &str, variable: &str, test: &str) -> bool {
    let wanted = std::env::var_os(variable).is_some_and(|value| value == "1");
    let is_there = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let missing: Vec<_> = ["mvn", "javac"].into_iter().filter(|program| !is_there(program)).collect();
    assert!(missing.is_empty() || !wanted, "{variable}=1 asks for the suite {suite}, but there is no {missing:?}");
    if !wanted {
        let lacking = if missing.is_empty() { String::new() } else { format!(", and there is no {missing:?}") };
        say(suite, &format!("skipped {test}: {variable}=1 is not set{lacking}"));
    }
    wanted
}

/// Prints past the test harness, which would keep the output of a passing test to itself.
pub(crate) fn say(suite: &str, line: &str) {
    // Nobody is there to hear that it failed.
    let _written = writeln!(std::io::stderr(), "{suite}: {line}");
}

/// Compiles the modules of a suite's `pom.xml`; gives the folder with a folder for each of them.
pub(crate) fn compile(suite: &str) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{suite}-java"));
    std::fs::create_dir_all(&target).map_err(|error| format!("{}: {error}", target.display()))?;
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(suite).join("pom.xml");
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "compile", "-f"]).arg(pom).arg(format!("-Dinterop.target={}", target.display()));
    let output = run(&mut maven, &target)?;
    // Maven says what is wrong on standard output.
    if output.code == Some(0) { Ok(target) } else { Err(format!("{}\n{}", output.failure(), output.stdout)) }
}

/// The classpath of a compiled module.
pub(crate) fn classpath(compiled: &Path, module: &str) -> Result<String, String> {
    let module = compiled.join(module);
    let dependencies = text(&module.join("classpath.txt"))?;
    Ok(format!("{}:{}", module.join("classes").display(), dependencies.trim()))
}
