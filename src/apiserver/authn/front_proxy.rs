//! Users that an authenticating proxy names in headers (`--requestheader-*`), if it shows a certificate of its own
//! authority and, where names are listed, one of these names.

use std::collections::BTreeMap;

use http::HeaderMap;

use crate::config::RequestHeaderOptions;
use crate::identity::Identity;
use crate::request;

/// The user in the headers; `None` if there is none. Whether the peer may say so is decided elsewhere.
pub fn identify(options: &RequestHeaderOptions, headers: &HeaderMap) -> Option<Identity> {
    let first = |names: &[String]| {
        let values = names.iter().filter_map(|name| headers.get(name.as_str())?.to_str().ok());
        values.map(str::to_owned).find(|value| !value.is_empty())
    };
    let name = first(&options.username_headers)?;
    let groups = options.group_headers.iter().flat_map(|name| headers.get_all(name.as_str()));
    let groups = groups.filter_map(|value| value.to_str().ok()).filter(|group| !group.is_empty());
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for prefix in options.extra_headers_prefix.iter().map(|prefix| prefix.to_ascii_lowercase()) {
        for (header, value) in headers {
            let Some(key) = header.as_str().strip_prefix(&prefix) else { continue };
            let key = request::unescape(key, false).map_or_else(|| key.to_owned(), |key| key.into_owned());
            extra.entry(key).or_default().extend(value.to_str().ok().map(str::to_owned));
        }
    }
    Some(Identity {
        name,
        uid: first(&options.uid_headers).unwrap_or_default(),
        groups: groups.map(str::to_owned).collect(),
        extra,
    })
}

/// Takes those headers out of a request, whoever it is from.
pub fn forget(options: &RequestHeaderOptions, headers: &mut HeaderMap) {
    let named = options.username_headers.iter().chain(&options.uid_headers).chain(&options.group_headers);
    for name in named {
        headers.remove(name.as_str());
    }
    let prefixed: Vec<_> = headers
        .keys()
        .filter(|header| {
            let prefixes = options.extra_headers_prefix.iter();
            prefixes.map(|prefix| prefix.to_ascii_lowercase()).any(|prefix| header.as_str().starts_with(&prefix))
        })
        .cloned()
        .collect();
    for header in prefixed {
        headers.remove(header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    #[test]
    fn the_headers_name_user_groups_and_extra() {
        let options = RequestHeaderOptions {
            username_headers: vec!["X-Remote-User".into()],
            uid_headers: vec!["X-Remote-Uid".into()],
            group_headers: vec!["X-Remote-Group".into()],
            extra_headers_prefix: vec!["X-Remote-Extra-".into()],
            ..RequestHeaderOptions::new("ca.crt")
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-remote-extra-example.com%2fscope", "a"),
            ("x-remote-extra-example.com%2fscope", "b"),
            ("accept", "*/*"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        assert_eq!(identify(&options, &headers), None);
        headers.insert("x-remote-user", "alice".parse().unwrap());
        let user = identify(&options, &headers).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("alice", ""));
        assert_eq!(user.groups, ["dev", "ops"]);
        assert_eq!(user.extra["example.com/scope"], ["a", "b"]);
        forget(&options, &mut headers);
        assert_eq!(headers.len(), 1);
    }
}
