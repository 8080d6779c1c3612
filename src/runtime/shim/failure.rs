//! An error on its way out of a half-built container: what was being done, and what the kernel said.

use std::io;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::cgroup;

/// One sentence. It crosses a pipe from the container's first process, so it is plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    pub fn new(message: String) -> Self {
        Self(message)
    }

    pub fn os(step: String, error: Errno) -> Self {
        Self(format!("{step}: {}", error.desc().to_lowercase()))
    }

    pub fn within(self, outer: impl FnOnce() -> String) -> Self {
        Self(format!("{}: {}", outer(), self.0))
    }
}

impl From<cgroup::Error> for Failure {
    fn from(error: cgroup::Error) -> Self {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Self(format!("{error}{source}"))
    }
}

/// Adds to an error what was being done.
pub trait At<T> {
    fn at(self, step: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::os(step(), error))
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| match error.raw_os_error() {
            Some(number) => Failure::os(step(), Errno::from_raw(number)),
            None => Failure(format!("{}: {error}", step())),
        })
    }
}
