//! How a registry asks for authentication (`WWW-Authenticate`), and credentials that answer it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::image::Auth;
use crate::registries::HostAuth;

/// A challenge we can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// What a registry or its token service may be shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// User name and password.
    Basic(String, String),
    /// An OAuth2 refresh token.
    Refresh(String),
    /// A ready bearer token.
    Token(String),
}

impl Credentials {
    pub(crate) fn of(auth: &Auth) -> Option<Self> {
        Self::pick(&auth.registry_token, &auth.identity_token, &auth.username, &auth.password, &auth.auth)
    }

    pub(crate) fn of_host(auth: &HostAuth) -> Option<Self> {
        Self::pick(&auth.token, &auth.identity_token, &auth.username, &auth.password, &auth.auth)
    }

    fn pick(token: &str, identity_token: &str, username: &str, password: &str, auth: &str) -> Option<Self> {
        if !token.is_empty() {
            return Some(Self::Token(token.to_owned()));
        }
        if !identity_token.is_empty() {
            return Some(Self::Refresh(identity_token.to_owned()));
        }
        if !username.is_empty() {
            return Some(Self::Basic(username.to_owned(), password.to_owned()));
        }
        let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        Some(Self::Basic(username.to_owned(), password.trim_end_matches('\0').to_owned()))
    }
}

pub(crate) fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// The challenge in a `WWW-Authenticate` header that we prefer: Bearer before Basic.
pub(crate) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = false;
    for header in headers {
        let mut rest = header.trim();
        while !rest.is_empty() {
            let end = rest.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(rest.len());
            let (scheme, after) = rest.split_at(end);
            let (parameters, after) = parameters(after.trim_start());
            rest = after;
            if scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            } else if scheme.eq_ignore_ascii_case("bearer") {
                let find = |name: &str| {
                    parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
                };
                if let Some(realm) = find("realm") {
                    return Some(Challenge::Bearer { realm, service: find("service"), scope: find("scope") });
                }
            }
        }
    }
    basic.then_some(Challenge::Basic)
}

/// `key=value` or `key="value"`, joined by commas, up to where the next scheme begins.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let trimmed = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
        let end = trimmed.find(|c: char| c == '=' || c == ',' || c.is_whitespace()).unwrap_or(trimmed.len());
        let (key, after) = trimmed.split_at(end);
        let Some(value) = after.strip_prefix('=') else { return (found, trimmed) };
        if let Some(quoted) = value.strip_prefix('"') {
            let mut text = String::new();
            let mut characters = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, character)) = characters.next() {
                match character {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                    _ => text.push(character),
                }
            }
            found.push((key.to_owned(), text));
            rest = quoted.get(end..).unwrap_or_default();
        } else {
            let end = value.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(value.len());
            let (text, after) = value.split_at(end);
            found.push((key.to_owned(), text.to_owned()));
            rest = after;
        }
    }
}

/// A query's value, with all but unreserved characters encoded.
pub(crate) fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            let _ = std::fmt::Write::write_fmt(&mut text, format_args!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_as_registries_send_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#;
        assert_eq!(
            parse([hub].into_iter()),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:library/nginx:pull".into()),
            })
        );
        assert_eq!(parse([r#"Basic realm="Registry Realm""#].into_iter()), Some(Challenge::Basic));
        let both = r#"Basic realm="a, b", Bearer realm=x"#;
        assert_eq!(
            parse([both].into_iter()),
            Some(Challenge::Bearer { realm: "x".into(), service: None, scope: None })
        );
        assert_eq!(parse(["Negotiate"].into_iter()), None);
    }

    #[test]
    fn a_docker_config_entry_is_a_user_and_a_password() {
        let auth = Auth { auth: STANDARD.encode("me:pass:word"), ..Auth::default() };
        assert!(Credentials::of(&auth) == Some(Credentials::Basic("me".into(), "pass:word".into())));
    }

    proptest! {
        #[test]
        fn any_header_ends(text in "\\PC{0,60}") {
            let _ = parse([text.as_str()].into_iter());
        }
    }
}
