//! What a namespace asks for: levels and versions of them, for refusing, for auditing and for warning.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::{FieldError, Fields};

const PREFIX: &str = "pod-security.kubernetes.io/";

/// From the weakest to the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

/// Of Kubernetes 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    Latest,
    Minor(u32),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

impl Level {
    pub fn parse(text: &str) -> Result<Level, &'static str> {
        match text {
            "privileged" => Ok(Level::Privileged),
            "baseline" => Ok(Level::Baseline),
            "restricted" => Ok(Level::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

impl Version {
    pub fn parse(text: &str) -> Result<Version, &'static str> {
        let error = "must be \"latest\" or \"v1.x\"";
        if text == "latest" {
            return Ok(Version::Latest);
        }
        let minor = text.strip_prefix("v1.").ok_or(error)?;
        let is_number = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || (minor.len() > 1 && minor.starts_with('0')) {
            return Err(error);
        }
        minor.parse().map(Version::Minor).map_err(|_| error)
    }

    pub(super) fn minor(self) -> u32 {
        match self {
            Version::Latest => u32::MAX,
            Version::Minor(minor) => minor,
        }
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.version {
            Version::Latest => f.write_str(":latest"),
            Version::Minor(minor) => write!(f, ":v1.{minor}"),
        }
    }
}

impl Policy {
    /// Nothing is refused, noted or warned of.
    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|one| one.level == Level::Privileged)
    }

    /// They come to the same.
    pub fn is_equivalent(&self, other: &Policy) -> bool {
        let same = |a: LevelVersion, b: LevelVersion| {
            a.level == b.level && (a.level == Level::Privileged || a.version == b.version)
        };
        same(self.enforce, other.enforce) && same(self.audit, other.audit) && same(self.warn, other.warn)
    }

    /// What a namespace's labels say, and otherwise `self`. A label that cannot be read is strict where it refuses, and
    /// lenient elsewhere.
    pub fn of_labels(mut self, labels: &Value) -> (Policy, Vec<FieldError>) {
        let mut errors = Vec::new();
        if !has_any(labels) {
            return (self, errors);
        }
        let mut enforces = false;
        for (mode, failing, policy) in [
            ("enforce", Level::Restricted, &mut self.enforce),
            ("audit", Level::Privileged, &mut self.audit),
            ("warn", Level::Privileged, &mut self.warn),
        ] {
            let label = format!("{PREFIX}{mode}");
            if let Some(text) = labels.at(&label).and_then(Value::as_str) {
                match Level::parse(text) {
                    Ok(level) => {
                        policy.level = level;
                        enforces |= mode == "enforce";
                    }
                    Err(why) => {
                        policy.level = failing;
                        errors.push(wrong(&label, text, why));
                    }
                }
            }
            let label = format!("{PREFIX}{mode}-version");
            if let Some(text) = labels.at(&label).and_then(Value::as_str) {
                policy.version = Version::parse(text).unwrap_or_else(|why| {
                    errors.push(wrong(&label, text, why));
                    Version::Latest
                });
            }
        }
        // What is refused is warned of in templates.
        if enforces && !has(labels, "warn") && self.enforce.level > self.warn.level {
            self.warn.level = self.enforce.level;
            if !has(labels, "warn-version") {
                self.warn.version = self.enforce.version;
            }
        }
        (self, errors)
    }

    /// What is said to whoever labels a namespace that is exempt; nothing if the labels ask for nothing.
    pub fn exempt_warning(&self, namespace: &str, labels: &Value, defaults: &Policy) -> Option<String> {
        if self.is_privileged() || self.is_equivalent(defaults) {
            return None;
        }
        let asked = [("enforce", self.enforce), ("audit", self.audit), ("warn", self.warn)];
        let asked = asked.iter().filter(|(mode, level)| {
            level.level != Level::Privileged && (has(labels, mode) || has(labels, &format!("{mode}-version")))
        });
        let asked: Vec<String> = asked.map(|(mode, level)| format!("{mode}={level}")).collect();
        Some(format!(
            "namespace \"{namespace}\" is exempt from Pod Security, and the policy ({}) will be ignored",
            asked.join(", ")
        ))
    }
}

fn has(labels: &Value, mode: &str) -> bool {
    labels.has(&format!("{PREFIX}{mode}"))
}

fn has_any(labels: &Value) -> bool {
    labels.as_object().is_some_and(|labels: &Map<String, Value>| labels.keys().any(|key| key.starts_with(PREFIX)))
}

fn wrong(label: &str, text: &str, why: &str) -> FieldError {
    FieldError::invalid(format!("metadata.labels[{label}]"), &json!(text), why)
}
