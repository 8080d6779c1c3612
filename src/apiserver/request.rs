//! What a path and its query ask for (upstream: `RequestInfo`).

use std::borrow::Cow;

use api::{Failure, Options, PatchKind, Verb};
use http::Method;

/// A path that names a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<String>,
    /// What follows the subresource: the path behind `proxy`.
    pub rest: String,
    /// The path began with the old prefix `/api/v1/watch/`.
    pub watch_prefix: bool,
}

impl Target {
    /// `None` for paths that are not below a group's version.
    pub fn parse(path: &str) -> Option<Target> {
        let mut parts = path.trim_start_matches('/').split('/');
        let mut target = Target::default();
        match parts.next()? {
            "api" => target.version = decode(parts.next()?)?,
            "apis" => {
                target.group = decode(parts.next()?)?;
                target.version = decode(parts.next()?)?;
            }
            _ => return None,
        }
        let mut parts = parts.peekable();
        if parts.peek() == Some(&"watch") {
            parts.next();
            target.watch_prefix = true;
        }
        let first = decode(parts.next().filter(|part| !part.is_empty())?)?;
        let second = parts.next().filter(|part| !part.is_empty());
        let third = parts.peek().copied().filter(|part| !part.is_empty());
        let in_namespace = first == "namespaces"
            && second.is_some()
            && third.is_some_and(|third| !matches!(third, "status" | "finalize"));
        if in_namespace {
            target.namespace = Some(decode(second?)?);
            target.plural = decode(parts.next()?)?;
            target.name = match parts.next().filter(|part| !part.is_empty()) {
                Some(name) => Some(decode(name)?),
                None => None,
            };
        } else {
            target.plural = first;
            target.name = match second {
                Some(name) => Some(decode(name)?),
                None => None,
            };
        }
        target.subresource = match parts.next().filter(|part| !part.is_empty()) {
            Some(part) => Some(decode(part)?),
            None => None,
        };
        target.rest = parts.collect::<Vec<_>>().join("/");
        Some(target)
    }
}

/// The words of authorisation for a request (upstream derives them the same way).
pub fn verb(method: &Method, target: &Target, watch: bool) -> Option<Verb> {
    Some(match *method {
        Method::POST => Verb::Create,
        Method::GET | Method::HEAD if target.name.is_none() || target.watch_prefix => {
            if watch || target.watch_prefix {
                Verb::Watch
            } else {
                Verb::List
            }
        }
        Method::GET | Method::HEAD => Verb::Get,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if target.name.is_none() => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        Method::OPTIONS if target.subresource.as_deref() == Some("proxy") => Verb::Options,
        _ => return None,
    })
}

/// The parameters of a query with their escapes undone; pairs that are not UTF-8 are left out.
pub fn query(query: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    const PARAMETERS_MAX: usize = 1000;
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .take(PARAMETERS_MAX)
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(key, true)?, unescape(value, true)?))
        })
        .collect()
}

/// The options in a query, and whether it is a watch.
pub fn options(parameters: &[(Cow<'_, str>, Cow<'_, str>)]) -> Result<(Options, bool), Failure> {
    let mut options = Options::default();
    let mut watch = false;
    for (at, (key, value)) in parameters.iter().enumerate() {
        // What is said twice is as it was said first.
        if parameters.iter().take(at).any(|(before, _)| before == key) {
            continue;
        }
        let text = || (!value.is_empty()).then(|| value.to_string());
        match key.as_ref() {
            "labelSelector" => options.label_selector = text(),
            "fieldSelector" => options.field_selector = text(),
            "resourceVersion" => options.resource_version = text(),
            "resourceVersionMatch" => options.resource_version_match = text(),
            "limit" => options.limit = positive(value)?,
            "continue" => options.continue_token = text(),
            "timeoutSeconds" => options.timeout_seconds = positive(value)?,
            "allowWatchBookmarks" => options.allow_watch_bookmarks = truth(value),
            "sendInitialEvents" => options.send_initial_events = Some(truth(value)),
            "watch" => watch = truth(value),
            // Other values are refused before anything is done.
            "dryRun" => options.dry_run = true,
            "fieldManager" => options.field_manager = text(),
            "fieldValidation" => options.field_validation = text(),
            "force" => options.force = Some(truth(value)),
            "gracePeriodSeconds" => options.grace_period_seconds = number(value)?,
            "propagationPolicy" => options.propagation_policy = text(),
            "orphanDependents" => {
                let policy = if truth(value) { "Orphan" } else { "Background" };
                options.propagation_policy = Some(policy.to_owned());
            }
            _ => {}
        }
    }
    Ok((options, watch))
}

/// The kind of patch that a content type names.
pub fn patch_kind(content_type: &str) -> Option<PatchKind> {
    PatchKind::from_media_type(media_type(content_type))
}

/// A content type without its parameters.
pub fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// What a query says is so, as upstream reads it: whatever is not said to be false.
pub fn truth(value: &str) -> bool {
    value != "0" && !value.eq_ignore_ascii_case("false")
}

fn number(value: &str) -> Result<Option<i64>, Failure> {
    if value.is_empty() {
        return Ok(None);
    }
    let message = || format!("strconv.ParseInt: parsing \"{value}\": invalid syntax");
    value.parse().map(Some).map_err(|_| Failure::bad_request(message()))
}

/// A number that means something only above zero.
fn positive(value: &str) -> Result<Option<u64>, Failure> {
    Ok(number(value)?.and_then(|number| u64::try_from(number).ok()).filter(|&number| number > 0))
}

/// A part of a path. One that hides a slash is two, and leads nowhere.
fn decode(part: &str) -> Option<String> {
    unescape(part, false).map(Cow::into_owned).filter(|part| !part.contains('/'))
}

/// Undoes percent-encoding; `None` when it is broken or not UTF-8.
pub fn unescape(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || (plus_is_space && byte == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// Percent-encodes what may not stand in a query or a path's part.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(path: &str) -> String {
        let Some(t) = Target::parse(path) else { return "none".to_owned() };
        let part = |part: Option<String>| part.unwrap_or_else(|| "-".to_owned());
        format!(
            "{}/{} {} {} {} {} {}",
            t.group,
            t.version,
            part(t.namespace),
            t.plural,
            part(t.name),
            part(t.subresource),
            t.rest
        )
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        for (path, expected) in [
            ("/api/v1/pods", "/v1 - pods - - "),
            ("/api/v1/namespaces", "/v1 - namespaces - - "),
            ("/api/v1/namespaces/shop", "/v1 - namespaces shop - "),
            ("/api/v1/namespaces/shop/", "/v1 - namespaces shop - "),
            ("/api/v1/namespaces/shop/finalize", "/v1 - namespaces shop finalize "),
            ("/api/v1/namespaces/shop/status", "/v1 - namespaces shop status "),
            ("/api/v1/namespaces/shop/pods", "/v1 shop pods - - "),
            ("/api/v1/namespaces/shop/pods/web/log", "/v1 shop pods web log "),
            ("/apis/apps/v1/namespaces/a/deployments/b/scale", "apps/v1 a deployments b scale "),
            ("/api/v1/nodes/n1/proxy/stats/summary", "/v1 - nodes n1 proxy stats/summary"),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "rbac.authorization.k8s.io/v1 - clusterroles system:node - ",
            ),
            ("/apis/apps/v1", "none"),
            ("/healthz", "none"),
            ("/api/v1/pods/%zz", "none"),
            // What cannot be read is no name, and not no name: a collection is something else.
            ("/api/v1/namespaces/shop/pods/%ff", "none"),
            ("/api/v1/namespaces/shop/pods/a%2Fb", "none"),
        ] {
            assert_eq!(show(path), expected, "{path}");
        }
    }

    #[test]
    fn options_are_for_what_is_proxied_to() {
        let of = |path| verb(&Method::OPTIONS, &Target::parse(path).unwrap(), false);
        assert_eq!(of("/api/v1/namespaces/a/pods/b/proxy/c").map(Verb::as_str), Some(""));
        assert_eq!(of("/api/v1/namespaces/a/pods/b"), None);
        assert_eq!(of("/api/v1/namespaces/a/pods/b/exec"), None);
    }

    #[test]
    fn queries_are_unescaped() {
        let parameters = query("labelSelector=a%3Db%2Cc&limit=5&watch=1&fieldSelector=x+y&bad=%f");
        let (options, watch) = options(&parameters).unwrap();
        assert!(watch);
        assert_eq!(options.label_selector.as_deref(), Some("a=b,c"));
        assert_eq!(options.field_selector.as_deref(), Some("x y"));
        assert_eq!(options.limit, Some(5));
        assert_eq!(self::options(&query("limit=2&limit=3")).unwrap().0.limit, Some(2));
        assert_eq!(self::options(&query("limit=-1&timeoutSeconds=-1")).unwrap().0.limit, None);
        assert_eq!(escape("a b/ü"), "a%20b%2F%C3%BC");
    }
}
