//! What stories are told with.

pub mod cluster;
pub mod hosts;
pub mod images;
pub mod registry;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Waits until `what` holds, looking every 100 ms.
#[track_caller]
pub fn until(what: &str, at_most: Duration, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < at_most, "not within {at_most:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until `value` is what is expected, and says what it was instead.
#[track_caller]
pub fn until_is(what: &str, at_most: Duration, expected: &str, mut value: impl FnMut() -> String) {
    let began = Instant::now();
    loop {
        let found = value();
        if found == expected {
            return;
        }
        assert!(began.elapsed() < at_most, "not within {at_most:?}: {what}; instead of {expected:?} it is {found:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

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
