//! URLs, as Go's `net/url` takes them apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Function, bad, function, library, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Key, Library, Map, Text, Value};

pub const FUNCTIONS: &[Function] = &[
    function("url", "(string) -> kubernetes.URL", Cost::TextAlike, |args| {
        let parsed = Url::parse(text(args, 0)?)
            .map_err(|why| EvalError::failed(format!("URL parse error during conversion from string: {why}")))?;
        Ok(Value::Library(Library::Url(Arc::new(parsed))))
    }),
    function("isURL", "(string) -> bool", Cost::One, |args| Ok(Value::Bool(Url::parse(text(args, 0)?).is_ok()))),
    function("getScheme", "kubernetes.URL.() -> string", Cost::One, |args| Ok(Value::string(&*url(args)?.scheme))),
    function("getHost", "kubernetes.URL.() -> string", Cost::One, |args| Ok(Value::string(&*url(args)?.host))),
    function("getHostname", "kubernetes.URL.() -> string", Cost::One, |args| {
        Ok(Value::string(split_port(&url(args)?.host).0))
    }),
    function("getPort", "kubernetes.URL.() -> string", Cost::One, |args| {
        Ok(Value::string(split_port(&url(args)?.host).1))
    }),
    function("getEscapedPath", "kubernetes.URL.() -> string", Cost::One, |args| {
        Ok(Value::string(&*url(args)?.escaped_path))
    }),
    function("getQuery", "kubernetes.URL.() -> map(string, list(string))", Cost::One, |args| Ok(url(args)?.query())),
];

fn url<'v>(args: &'v [Value<'_>]) -> Result<&'v Url, EvalError> {
    match library(args, 0)? {
        Library::Url(url) => Ok(url),
        _ => bad(),
    }
}

pub struct Url {
    text: String,
    scheme: String,
    /// With the port; an IPv6 address in brackets.
    host: String,
    escaped_path: String,
    query: String,
}

impl Url {
    pub fn text(&self) -> &str {
        &self.text
    }

    /// An absolute URL or an absolute path. The error is Go's text.
    pub fn parse(text: &str) -> Result<Url, String> {
        let fail = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.is_empty() {
            return fail("empty url");
        }
        if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return fail("net/url: invalid control character in URL");
        }
        let (scheme, rest) = match scheme(text) {
            Ok(found) => found,
            Err(why) => return fail(why),
        };
        if scheme.is_empty() && !rest.starts_with('/') {
            return fail("invalid URI for request");
        }
        if !rest.starts_with('/') {
            return fail("invalid URI for request");
        }
        let whole = rest.split_once('#').map_or(rest, |(whole, _)| whole);
        let (before, query) = whole.split_once('?').unwrap_or((whole, ""));
        let (host, path) = match before.strip_prefix("//") {
            Some(authority) if !scheme.is_empty() || !before.starts_with("///") => {
                let end = authority.find('/').unwrap_or(authority.len());
                let (authority, path) = authority.split_at(end);
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                if let Err(why) = check_host(host) {
                    return fail(&why);
                }
                (host, path)
            }
            _ => ("", before),
        };
        if let Some(bad) = bad_escape(path) {
            return fail(&format!("invalid URL escape {bad:?}"));
        }
        Ok(Url {
            text: text.to_owned(),
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_owned(),
            escaped_path: escape_path(path),
            query: query.to_owned(),
        })
    }

    fn query<'a>(&self) -> Value<'a> {
        let mut found: BTreeMap<Key<'a>, Vec<Value<'a>>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(name), Some(value)) = (unescape(name), unescape(value)) {
                found.entry(Key::String(Text::Shared(name.into()))).or_default().push(Value::string(value));
            }
        }
        let entries = found.into_iter().map(|(key, values)| (key, Value::list(values))).collect();
        Value::Map(Map::Shared(Arc::new(entries)))
    }
}

/// The scheme, empty if there is none, and what follows it.
fn scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (index, found) in text.char_indices() {
        match found {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if index > 0 => {}
            ':' if index == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((&text[..index], &text[index + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_host(host: &str) -> Result<(), String> {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((_, port)) = rest.split_once(']') else { return Err("missing ']' in host".to_owned()) };
        return check_port(port);
    }
    if let Some(bad) = host.find([' ', '<', '>', '"', '{', '}', '|', '\\', '^', '`']) {
        let bad = host[bad..].chars().next().unwrap_or(' ');
        return Err(format!("invalid character {:?} in host name", bad.to_string()));
    }
    match host.rfind(':') {
        Some(colon) => check_port(&host[colon..]),
        None => Ok(()),
    }
}

fn check_port(port: &str) -> Result<(), String> {
    let formed = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    if formed { Ok(()) } else { Err(format!("invalid port {port:?} after host")) }
}

fn split_port(host: &str) -> (&str, &str) {
    if let Some((inner, after)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (inner, after.strip_prefix(':').unwrap_or_default());
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

/// The first `%` that starts no escape.
fn bad_escape(text: &str) -> Option<String> {
    let mut rest = text;
    while let Some(start) = rest.find('%') {
        let escape = rest.get(start + 1..start + 3);
        if !escape.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Some(rest[start..].chars().take(3).collect());
        }
        rest = &rest[start + 3..];
    }
    None
}

fn escape_path(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// A part of a query; `None` if it has a broken escape.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                bytes.push(u8::try_from(high << 4 | low).ok()?);
            }
            other => bytes.push(other),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
