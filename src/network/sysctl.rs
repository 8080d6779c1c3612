//! Kernel settings under `/proc/sys/net`, of the calling thread's network namespace.
//!
//! Two of them are not of a link of ours but of the whole node. What they were before is kept as the bridge's alias: it
//! is there exactly as long as what relies on the change, so a restart reads it back and nothing is written to disk.

use std::path::{Path, PathBuf};

use crate::Error;

const ROOT: &str = "/proc/sys/net";
/// The node's settings as we need them. Pods of one node reach each other through the bridge's address on purpose; they
/// are not to be told of a shorter way, and the setting of a link only counts if that for all agrees.
const NODE: [(&str, &str); 2] = [("ipv4/ip_forward", "1"), ("ipv4/conf/all/send_redirects", "0")];
const ALIAS_PREFIX: &str = "cluster-before";
/// Longer values are not among those that we know.
const VALUE_BYTES_MAX: usize = 16;

/// What settings of the node were before they were changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Before(Vec<(&'static str, String)>);

impl Before {
    /// As an alias says; anything else says nothing.
    pub fn parse(alias: &str) -> Self {
        let mut words = alias.split(' ');
        if words.next() != Some(ALIAS_PREFIX) {
            return Self::default();
        }
        let known = words.filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            let (name, _) = NODE.into_iter().find(|(known, _)| *known == name)?;
            Some((name, value.to_owned()))
        });
        Self(known.collect())
    }

    pub fn text(&self) -> String {
        self.0.iter().fold(ALIAS_PREFIX.to_owned(), |text, (name, value)| format!("{text} {name}={value}"))
    }

    /// Adds what is about to be changed, unless an earlier start has changed it.
    pub fn remember(mut self) -> Self {
        for (name, wanted) in NODE {
            if let Ok(current) = std::fs::read_to_string(path(name)) {
                self.add(name, wanted, current.trim());
            }
        }
        self
    }

    fn add(&mut self, name: &'static str, wanted: &str, current: &str) {
        let is_known = self.0.iter().any(|(known, _)| *known == name);
        if current != wanted && !is_known && current.len() <= VALUE_BYTES_MAX {
            self.0.push((name, current.to_owned()));
        }
    }

    /// Sets back what is still as we set it.
    pub fn restore(&self) -> Result<(), Error> {
        for (name, value) in &self.0 {
            let wanted = NODE.into_iter().find(|(known, _)| known == name).map(|(_, wanted)| wanted);
            if std::fs::read_to_string(path(name)).is_ok_and(|current| Some(current.trim()) == wanted) {
                set(name, value)?;
            }
        }
        Ok(())
    }
}

/// Sets what the node needs as a whole.
pub(crate) fn set_node() -> Result<(), Error> {
    NODE.into_iter().try_for_each(|(name, value)| set(name, value))
}

/// Sets `name` (with slashes) unless it has that value already. A setting that this kernel does not have is no error.
pub(crate) fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = path(name);
    match std::fs::read_to_string(&path) {
        Ok(current) if current.trim() == value => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => std::fs::write(&path, value).map_err(|source| Error::Sysctl { path, source }),
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_is_told_by_an_alias() {
        let mut before = Before::parse("");
        before.add("ipv4/ip_forward", "1", "0");
        before.add("ipv4/conf/all/send_redirects", "0", "0");
        assert_eq!(before.text(), "cluster-before ipv4/ip_forward=0", "only what changes");
        let mut again = Before::parse(&before.text());
        assert_eq!(again, before);
        again.add("ipv4/ip_forward", "1", "1");
        assert_eq!(again, before, "a second start finds it changed and keeps what was first");
    }

    #[test]
    fn an_alias_of_others_says_nothing() {
        for alias in ["", "my bridge", "cluster-before", "cluster-before ../../kernel/panic=1 x", "ipv4/ip_forward=0"] {
            assert_eq!(Before::parse(alias), Before::default(), "{alias:?}");
        }
    }
}
