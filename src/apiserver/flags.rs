//! kube-apiserver's flags, as they are given with `--kube-apiserver-arg` (k3s has the same flag): names, meanings and
//! defaults are upstream's. Each part of the server has its table; a flag that stands in none is refused, because a
//! flag that is silently ignored is worse than a server that does not start.
//!
//! A flag that is given replaces the default, also where it is a list. Files that flags name are read when the server
//! starts.

mod admission;
mod aggregation;
mod audit;
mod authentication;
mod authorization;
mod duration;
mod protection;
mod runtime;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use duration::parse as parse_duration;

use crate::config::Config;

/// The tables, one for each part of the server.
const TABLES: [&[Flag]; 7] = [
    admission::FLAGS,
    aggregation::FLAGS,
    audit::FLAGS,
    authentication::FLAGS,
    authorization::FLAGS,
    protection::FLAGS,
    runtime::FLAGS,
];

/// How alike two names must be for one to be taken for the other, mistyped.
const SIMILAR_ENOUGH: f64 = 0.8;

/// A flag's name and what it does.
pub(crate) type Flag = (&'static str, Set);

/// What a flag takes and where it puts that. The text of an error says what the value should be.
pub(crate) enum Set {
    /// `name` or `name=true`; the last one counts.
    Switch(fn(&mut Config, bool)),
    /// The last one counts.
    Text(fn(&mut Config, &str) -> Result<(), String>),
    /// As Go writes it, such as `1h30m`; the last one counts.
    Duration(fn(&mut Config, Duration)),
    /// Parts that commas separate; the parts of a flag that is repeated follow each other.
    List(fn(&mut Config, Vec<String>) -> Result<(), String>),
    /// One value for each time that the flag is given, commas and all.
    Repeated(fn(&mut Config, Vec<String>) -> Result<(), String>),
}

/// A flag that cannot be obeyed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FlagError {
    #[error("unknown flag {name:?}{hint}")]
    Unknown { name: String, hint: String },
    #[error("{name}: {value:?} is no value for it: {why}")]
    Value { name: &'static str, value: String, why: String },
    #[error("{name}: needs a value, as in {name}=VALUE")]
    NoValue { name: &'static str },
}

impl Config {
    /// Takes over flags of the form `name=value`; a switch may go without value. Dashes in front are allowed.
    pub fn apply_flags<'a>(&mut self, arguments: impl IntoIterator<Item = &'a str>) -> Result<(), FlagError> {
        let mut given: BTreeMap<&'static str, (&'static Set, Vec<Option<&str>>)> = BTreeMap::new();
        for argument in arguments {
            let argument = argument.trim_start_matches('-');
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument, None),
            };
            let known = all().find(|(known, _)| *known == name);
            let (name, set) = known.ok_or_else(|| FlagError::Unknown { name: name.to_owned(), hint: nearest(name) })?;
            given.entry(name).or_insert((set, Vec::new())).1.push(value);
        }
        given.into_iter().try_for_each(|(name, (set, values))| set.apply(self, name, &values))
    }
}

fn all() -> impl Iterator<Item = &'static Flag> {
    TABLES.into_iter().flatten()
}

fn nearest(name: &str) -> String {
    all()
        .map(|(known, _)| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > SIMILAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| format!("; did you mean {known:?}?"))
        .unwrap_or_default()
}

impl Set {
    fn apply(&self, config: &mut Config, name: &'static str, values: &[Option<&str>]) -> Result<(), FlagError> {
        if let Set::Switch(set) = self {
            let text = values.last().copied().flatten().unwrap_or("true");
            let on = truth(text).ok_or_else(|| refused(name, text, "it should be true or false"))?;
            set(config, on);
            return Ok(());
        }
        let values: Option<Vec<&str>> = values.iter().copied().collect();
        let values = values.ok_or(FlagError::NoValue { name })?;
        let last = values.last().copied().unwrap_or_default();
        let whole = values.join(",");
        match self {
            Set::Switch(_) => Ok(()),
            Set::Text(set) => set(config, last).map_err(|why| refused(name, last, why)),
            Set::Duration(set) => {
                set(config, parse_duration(last).map_err(|error| refused(name, last, error.to_string()))?);
                Ok(())
            }
            Set::List(set) => {
                let parts = values.iter().flat_map(|value| value.split(',')).map(|part| part.trim().to_owned());
                set(config, parts.filter(|part| !part.is_empty()).collect()).map_err(|why| refused(name, &whole, why))
            }
            Set::Repeated(set) => set(config, values.iter().map(|value| (*value).to_owned()).collect())
                .map_err(|why| refused(name, &whole, why)),
        }
    }
}

fn refused(name: &'static str, value: &str, why: impl Into<String>) -> FlagError {
    FlagError::Value { name, value: value.to_owned(), why: why.into() }
}

/// The path of a file, which is read later.
fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("it should name a file".to_owned()) } else { Ok(PathBuf::from(text)) }
}

/// The version of the reviews that a webhook answers.
fn review_version(text: &str) -> Result<String, String> {
    match text {
        "v1" | "v1beta1" => Ok(text.to_owned()),
        _ => Err("it should be v1 or v1beta1".to_owned()),
    }
}

/// What Go takes for a truth value.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn applied(arguments: &[&str]) -> Result<Config, FlagError> {
        let mut config = testing::config("10.43.0.0/16");
        config.apply_flags(arguments.iter().copied())?;
        Ok(config)
    }

    #[test]
    fn a_flag_replaces_the_default_and_the_last_one_counts() {
        let config = applied(&["anonymous-auth=false", "service-account-max-token-expiration=48h"]).unwrap();
        assert_eq!(config.authentication.anonymous, Some(false));
        assert_eq!(config.service_accounts.token_expiration_max, Some(Duration::from_secs(48 * 3600)));
        let config = applied(&["--anonymous-auth=false", "--anonymous-auth"]).unwrap();
        assert_eq!(config.authentication.anonymous, Some(true));
        let config = applied(&["service-account-issuer=https://a", "service-account-issuer=https://b"]).unwrap();
        assert_eq!(config.service_accounts.issuers, ["https://a", "https://b"]);
        assert_eq!(
            applied(&["api-audiences=a, b", "api-audiences=c"]).unwrap().service_accounts.api_audiences.len(),
            3
        );
    }

    #[test]
    fn an_unknown_flag_is_named_with_the_nearest_right_one() {
        let error = applied(&["anonymus-auth=true"]).err().unwrap().to_string();
        assert_eq!(error, "unknown flag \"anonymus-auth\"; did you mean \"anonymous-auth\"?");
        assert_eq!(applied(&["zzz=1"]).err().unwrap().to_string(), "unknown flag \"zzz\"");
    }

    #[test]
    fn a_wrong_value_is_named_with_what_it_should_be() {
        let error = applied(&["anonymous-auth=perhaps"]).err().unwrap().to_string();
        assert_eq!(error, "anonymous-auth: \"perhaps\" is no value for it: it should be true or false");
        let error = applied(&["service-account-max-token-expiration=soon"]).err().unwrap().to_string();
        assert!(error.starts_with("service-account-max-token-expiration: \"soon\""), "{error}");
        let none = applied(&["api-audiences"]).err().unwrap();
        assert_eq!(none, FlagError::NoValue { name: "api-audiences" });
    }

    #[test]
    fn no_flag_stands_in_two_tables() {
        let mut names: Vec<&str> = all().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
