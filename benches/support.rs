//! Hosts and images as the tests make them.

#[expect(dead_code, reason = "the stories need more of a host than the benches do")]
#[path = "../tests/support/hosts.rs"]
pub mod hosts;
#[expect(dead_code, reason = "the stories need more images than the benches do")]
#[path = "../tests/support/images.rs"]
pub mod images;

use std::process::{Command, Output};

/// Runs a command that has to succeed; its standard output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", both(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn both(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
