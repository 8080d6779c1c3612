//! Whom aggregated servers believe: the headers that name a user, and what they need to check who sent them.

use api::{Failure, Fields};
use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::config::Config;
use crate::identity::Identity;

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";

/// Names the user, and nobody whom the client may have named; the client's credentials stay here.
pub fn name_user(headers: &mut HeaderMap, user: &Identity) -> Result<(), Failure> {
    let foreign = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-remote-") || name.starts_with("impersonate-")
    };
    let gone: Vec<HeaderName> = headers.keys().filter(|name| foreign(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
    headers.remove(AUTHORIZATION);
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(Failure::internal);
    headers.insert(USER, value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(UID, value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(GROUP, value(group)?);
    }
    for (key, values) in &user.extra {
        let name = HeaderName::try_from(format!("{EXTRA}{}", escape(key))).map_err(Failure::internal)?;
        for one in values {
            headers.append(&name, value(one)?);
        }
    }
    Ok(())
}

/// A question of this server's own to an aggregated one.
pub fn question(path: &str, accept: &str) -> Result<Request<Bytes>, Failure> {
    let groups = vec![Identity::MASTERS.to_owned()];
    let user = Identity { name: "system:kube-aggregator".to_owned(), groups, ..Identity::default() };
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = path.parse().map_err(|_| Failure::bad_request("the path is no URI"))?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_str(accept).map_err(Failure::internal)?);
    name_user(request.headers_mut(), &user)?;
    Ok(request)
}

/// A key as it may stand in a header's name: what may not, and the percent sign, in percent-encoding.
fn escape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The ConfigMap `kube-system/extension-apiserver-authentication`, from which aggregated servers learn whose client
/// certificates and whose headers to believe: this server's, and those of the proxy in front that the administrator
/// configured. `proxy_authorities` are that proxy's, PEM.
pub fn published(config: &Config, proxy_authorities: &str) -> Value {
    let list = |names: &[&str], more: Option<&Vec<String>>| {
        let mut all: Vec<&str> = names.to_vec();
        let more = more.into_iter().flatten().map(String::as_str);
        all.extend(more.filter(|one| !names.iter().any(|known| known.eq_ignore_ascii_case(one))));
        json!(all).to_string()
    };
    let proxy = config.authentication.request_header.as_ref();
    let mut authorities = proxy_authorities.to_owned();
    let mut names: Vec<&str> = proxy.map_or(&[][..], |proxy| &proxy.allowed_names).iter().map(String::as_str).collect();
    // Any name is taken where none is listed.
    let any = proxy.is_some() && names.is_empty();
    if config.aggregation.files.certificate.is_none() {
        authorities.push_str(&config.aggregation.authorities_pem);
        if !any {
            names.extend(config.aggregation.allowed_names.iter().map(String::as_str));
        }
    }
    json!({
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": config.authorities_pem,
            "requestheader-allowed-names": json!(names).to_string(),
            "requestheader-client-ca-file": authorities,
            "requestheader-extra-headers-prefix":
                list(&["X-Remote-Extra-"], proxy.map(|proxy| &proxy.extra_headers_prefix)),
            "requestheader-group-headers": list(&["X-Remote-Group"], proxy.map(|proxy| &proxy.group_headers)),
            "requestheader-uid-headers": list(&["X-Remote-Uid"], proxy.map(|proxy| &proxy.uid_headers)),
            "requestheader-username-headers": list(&["X-Remote-User"], proxy.map(|proxy| &proxy.username_headers)),
        },
    })
}

/// A merge patch for the data that another start of the server left; what others added stays.
pub fn outdated(current: &Value, wanted: &Value) -> Option<Value> {
    let there = current.part("data");
    let changed: serde_json::Map<String, Value> = wanted
        .map("data")?
        .iter()
        .filter(|(key, value)| there.at(key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    (!changed.is_empty()).then(|| json!({"data": changed}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_user_who_was_identified_is_named() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        headers.insert("impersonate-user", HeaderValue::from_static("root"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        headers.insert("accept", HeaderValue::from_static("application/json"));
        let mut user = Identity::user("anna", ["devs"]);
        user.extra.insert("example.com/Key".to_owned(), vec!["1".to_owned(), "2".to_owned()]);
        name_user(&mut headers, &user).unwrap();
        let all =
            |name: &str| -> Vec<&str> { headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect() };
        assert_eq!(all("x-remote-user"), ["anna"]);
        assert_eq!(all("x-remote-group"), ["devs", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-example.com%2fkey"), ["1", "2"]);
        assert!(all("x-remote-extra-scopes").is_empty() && all("impersonate-user").is_empty());
        assert!(all("authorization").is_empty() && all("accept").len() == 1);
    }

    #[test]
    fn a_proxy_in_front_is_published_too() {
        let mut config = crate::testing::config("10.43.0.0/16");
        let data = published(&config, "")["data"].clone();
        assert_eq!(data["requestheader-allowed-names"], "[\"front-proxy-client\"]");
        assert_eq!(data["requestheader-client-ca-file"], config.aggregation.authorities_pem.as_str());
        let flags = [
            "requestheader-client-ca-file=/ca",
            "requestheader-allowed-names=gate",
            "requestheader-username-headers=X-Remote-User,X-Who",
        ];
        config.apply_flags(flags).unwrap();
        let data = published(&config, "PROXY\n")["data"].clone();
        assert_eq!(data["requestheader-allowed-names"], "[\"gate\",\"front-proxy-client\"]");
        assert!(data["requestheader-client-ca-file"].as_str().unwrap().starts_with("PROXY\n-----BEGIN"));
        assert_eq!(data["requestheader-username-headers"], "[\"X-Remote-User\",\"X-Who\"]");
        config.apply_flags(["proxy-client-cert-file=/cert", "proxy-client-key-file=/key"]).unwrap();
        assert_eq!(published(&config, "PROXY\n")["data"]["requestheader-client-ca-file"], "PROXY\n");
    }

    #[test]
    fn what_others_publish_there_stays() {
        let wanted = json!({"data": {"a": "1", "b": "2"}});
        assert_eq!(outdated(&json!({"data": {"a": "1", "b": "2", "c": "3"}}), &wanted), None);
        assert_eq!(outdated(&json!({"data": {"a": "0"}}), &wanted), Some(json!({"data": {"a": "1", "b": "2"}})));
    }
}
