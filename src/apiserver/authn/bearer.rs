//! Where a request carries its token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

/// A browser cannot set `Authorization` for a WebSocket; it offers this protocol besides the one that it wants.
const PROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The token in `Authorization`; anything but a bearer token is not looked at.
pub fn of_header(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().splitn(3, ' ');
    let scheme = parts.next()?;
    let token = parts.next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The token among the protocols that a WebSocket offers.
pub fn of_web_socket(headers: &HeaderMap) -> Result<Option<String>, String> {
    if !headers.get(UPGRADE).is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return Ok(None);
    }
    let (mut token, mut others) = (None, 0_usize);
    for offered in offered(headers) {
        let Some(encoded) = offered.strip_prefix(PROTOCOL_PREFIX) else {
            others += 1;
            continue;
        };
        if token.is_some() {
            return Err("multiple base64.bearer.authorization tokens specified".to_owned());
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| "invalid base64.bearer.authorization token encoding".to_owned())?;
        token = Some(String::from_utf8(bytes).map_err(|_| "invalid base64.bearer.authorization token".to_owned())?);
    }
    match token {
        Some(token) if token.is_empty() => Ok(None),
        Some(_) if others == 0 => Err("missing additional subprotocol".to_owned()),
        token => Ok(token),
    }
}

/// Takes what says who somebody is out of a request, so that it goes no further than here.
pub fn forget(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    let kept: Vec<&str> = offered(headers).filter(|one| !one.starts_with(PROTOCOL_PREFIX)).collect();
    if kept.len() == offered(headers).count() {
        return;
    }
    match http::HeaderValue::from_str(&kept.join(",")) {
        Ok(kept) => headers.insert(SEC_WEBSOCKET_PROTOCOL, kept),
        Err(_) => headers.remove(SEC_WEBSOCKET_PROTOCOL),
    };
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_bearer_tokens_are_taken_from_the_header() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("Bearer abc def", Some("abc")),
            ("Bearer", None),
            ("Bearer  abc", None),
            ("Basic abc", None),
        ] {
            assert_eq!(of_header(&headers(&[("authorization", value)])), token, "{value}");
        }
    }

    #[test]
    fn a_web_socket_offers_its_token_beside_its_protocol_and_it_goes_no_further() {
        let offer = format!("v5.channel.k8s.io, {PROTOCOL_PREFIX}YWJj");
        let mut offered = headers(&[("upgrade", "websocket"), ("sec-websocket-protocol", &offer)]);
        assert_eq!(of_web_socket(&offered), Ok(Some("abc".to_owned())));
        forget(&mut offered);
        assert_eq!(offered["sec-websocket-protocol"], "v5.channel.k8s.io");
        let alone = format!("{PROTOCOL_PREFIX}YWJj");
        assert!(of_web_socket(&headers(&[("upgrade", "websocket"), ("sec-websocket-protocol", &alone)])).is_err());
        assert_eq!(of_web_socket(&headers(&[("sec-websocket-protocol", &offer)])), Ok(None));
    }
}
