//! The example programs, which `cargo test` builds beside the tests.

use std::env;
use std::path::Path;
use std::process::Command;

/// Makes a command of an example.
pub(crate) fn example(name: &str) -> Command {
    let test = env::current_exe().expect("the test knows where it is");
    let folder = test.parent().and_then(Path::parent).expect("tests are in target/PROFILE/deps");
    let program = folder.join("examples").join(name).with_extension(env::consts::EXE_EXTENSION);
    assert!(program.exists(), "{} is missing: cargo build --examples makes it", program.display());
    Command::new(program)
}
