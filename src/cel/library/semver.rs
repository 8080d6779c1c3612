//! Semantic versions 2.0.0.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::{Function, bad, boolean, function, library, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Library, Value};

const BOTH: &str = "kubernetes.Semver.(kubernetes.Semver) -> bool";
const PART: &str = "kubernetes.Semver.() -> int";

pub const FUNCTIONS: &[Function] = &[
    function("semver", "(string) -> kubernetes.Semver; (string, bool) -> kubernetes.Semver", Cost::Text, |args| {
        Ok(Value::Library(Library::Semver(Arc::new(parsed(args)?.map_err(EvalError::failed)?))))
    }),
    function("isSemver", "(string) -> bool; (string, bool) -> bool", Cost::Text, |args| {
        Ok(Value::Bool(parsed(args)?.is_ok()))
    }),
    function("isGreaterThan", BOTH, Cost::One, |args| Ok(Value::Bool(order(args)? == Ordering::Greater))),
    function("isLessThan", BOTH, Cost::One, |args| Ok(Value::Bool(order(args)? == Ordering::Less))),
    function("compareTo", "kubernetes.Semver.(kubernetes.Semver) -> int", Cost::One, |args| {
        Ok(Value::Int(order(args)? as i64))
    }),
    function("major", PART, Cost::One, |args| part(args, |version| version.major)),
    function("minor", PART, Cost::One, |args| part(args, |version| version.minor)),
    function("patch", PART, Cost::One, |args| part(args, |version| version.patch)),
];

type Parsed = Result<Semver, &'static str>;

fn parsed(args: &[Value<'_>]) -> Result<Parsed, EvalError> {
    let given = text(args, 0)?;
    if args.len() > 1 && boolean(args, 1)? {
        return Ok(normalize(given).and_then(|full| Semver::parse(&full)));
    }
    Ok(Semver::parse(given))
}

fn semver<'v>(args: &'v [Value<'_>], index: usize) -> Result<&'v Semver, EvalError> {
    match library(args, index)? {
        Library::Semver(version) => Ok(version),
        _ => bad(),
    }
}

fn order(args: &[Value<'_>]) -> Result<Ordering, EvalError> {
    Ok(semver(args, 0)?.cmp(semver(args, 1)?))
}

fn part<'a>(args: &[Value<'a>], of: fn(&Semver) -> u64) -> Result<Value<'a>, EvalError> {
    Ok(Value::Int(i64::try_from(of(semver(args, 0)?)).unwrap_or(i64::MAX)))
}

/// `v1.2` becomes `1.2.0`, leading zeros go.
fn normalize(text: &str) -> Result<String, &'static str> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| {
            if part.len() < 2 {
                return part.to_owned();
            }
            let trimmed = part.trim_start_matches('0');
            if trimmed.starts_with(|first: char| first.is_ascii_digit()) {
                trimmed.to_owned()
            } else {
                format!("0{trimmed}")
            }
        })
        .collect();
    if parts.len() < 3 {
        if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data");
        }
        parts.resize(3, "0".to_owned());
    }
    Ok(parts.join("."))
}

pub struct Semver {
    text: String,
    major: u64,
    minor: u64,
    patch: u64,
    pre: Vec<Identifier>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    /// Numbers come before words.
    Number(u64),
    Word(String),
}

impl Semver {
    fn parse(text: &str) -> Parsed {
        if text.is_empty() {
            return Err("Version string empty");
        }
        let (whole, build) = text.split_once('+').map_or((text, None), |(whole, build)| (whole, Some(build)));
        let (core, pre) = whole.split_once('-').map_or((whole, None), |(core, pre)| (core, Some(pre)));
        let mut numbers = core.split('.');
        let mut number = || -> Result<u64, &'static str> {
            let digits = numbers.next().ok_or("No Major.Minor.Patch elements found")?;
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err("Invalid character(s) found in version number");
            }
            if digits.len() > 1 && digits.starts_with('0') {
                return Err("Version number must not contain leading zeroes");
            }
            digits.parse().map_err(|_| "Version number is too large")
        };
        let (major, minor, patch) = (number()?, number()?, number()?);
        if numbers.next().is_some() {
            return Err("Invalid character(s) found in patch number");
        }
        let mut identifiers = Vec::new();
        for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
            identifiers.push(identifier(part)?);
        }
        for part in build.into_iter().flat_map(|build| build.split('.')) {
            if part.is_empty() {
                return Err("Build meta data is empty");
            }
            if !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err("Invalid character(s) found in build meta data");
            }
        }
        Ok(Semver { text: text.to_owned(), major, minor, patch, pre: identifiers })
    }

    /// By precedence: build metadata does not count.
    pub fn cmp(&self, other: &Semver) -> Ordering {
        let core = (self.major, self.minor, self.patch).cmp(&(other.major, other.minor, other.patch));
        core.then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        })
    }
}

fn identifier(part: &str) -> Result<Identifier, &'static str> {
    if part.is_empty() {
        return Err("Prerelease is empty");
    }
    if part.bytes().all(|byte| byte.is_ascii_digit()) {
        if part.len() > 1 && part.starts_with('0') {
            return Err("Numeric PreRelease version must not contain leading zeroes");
        }
        return part.parse().map(Identifier::Number).map_err(|_| "PreRelease number is too large");
    }
    if !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err("Invalid character(s) found in prerelease");
    }
    Ok(Identifier::Word(part.to_owned()))
}

impl fmt::Display for Semver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}
