//! What a client wants to upgrade to, and the answer to it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_STREAM_PROTOCOLS: HeaderName = HeaderName::from_static("x-accept-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";

pub(crate) type Answer = Response<Full<Bytes>>;

/// What was agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// The subprotocol; empty if the client named none.
    WebSocket(&'static str),
    /// The stream protocol.
    Spdy(&'static str),
}

/// Agrees with the client, or gives the answer that refuses. `websocket` and `spdy` are the protocols that are served;
/// of those the client's first is taken. `unnamed` says whether a WebSocket without a subprotocol will do.
#[expect(clippy::result_large_err, reason = "once per session, and the refusal is what is answered")]
pub(crate) fn negotiate(
    headers: &HeaderMap,
    websocket: &[&'static str],
    spdy: &[&'static str],
    unnamed: bool,
) -> Result<(Upgrade, Answer), Answer> {
    let upgrade = list(headers, &UPGRADE);
    if !list(headers, &CONNECTION).iter().any(|token| token.eq_ignore_ascii_case("upgrade")) || upgrade.is_empty() {
        return Err(refusal(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request"));
    }
    if upgrade.iter().any(|token| token.eq_ignore_ascii_case("websocket")) {
        return negotiate_websocket(headers, websocket, unnamed);
    }
    if !upgrade.iter().any(|token| token.eq_ignore_ascii_case(SPDY)) {
        let message = format!("unable to upgrade: only websocket and {SPDY} are served");
        return Err(refusal(StatusCode::BAD_REQUEST, &message));
    }
    let offered = list(headers, &STREAM_PROTOCOL);
    let Some(protocol) = first_served(&offered, spdy) else {
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {spdy:?}"
        );
        let mut answer = refusal(StatusCode::FORBIDDEN, &message);
        for protocol in spdy {
            answer.headers_mut().append(ACCEPTED_STREAM_PROTOCOLS, HeaderValue::from_static(protocol));
        }
        return Err(answer);
    };
    let mut answer = switching(SPDY);
    answer.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    Ok((Upgrade::Spdy(protocol), answer))
}

#[expect(clippy::result_large_err, reason = "once per session, and the refusal is what is answered")]
fn negotiate_websocket(
    headers: &HeaderMap,
    served: &[&'static str],
    unnamed: bool,
) -> Result<(Upgrade, Answer), Answer> {
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let Some(key) = key.filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16)) else {
        return Err(refusal(StatusCode::BAD_REQUEST, "unable to upgrade: bad Sec-WebSocket-Key"));
    };
    let offered = list(headers, &SEC_WEBSOCKET_PROTOCOL);
    let protocol = match first_served(&offered, served) {
        Some(protocol) => protocol,
        None if offered.is_empty() && unnamed => "",
        None => {
            let message =
                format!("unable to upgrade: requested protocol(s) are not supported: {offered:?}; supports {served:?}");
            return Err(refusal(StatusCode::BAD_REQUEST, &message));
        }
    };
    let mut answer = switching("websocket");
    let accept = HeaderValue::try_from(derive_accept_key(key))
        .map_err(|_| refusal(StatusCode::BAD_REQUEST, "unable to upgrade: bad Sec-WebSocket-Key"))?;
    answer.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.is_empty() {
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok((Upgrade::WebSocket(protocol), answer))
}

fn first_served(offered: &[&str], served: &[&'static str]) -> Option<&'static str> {
    offered.iter().find_map(|offer| served.iter().copied().find(|served| served == offer))
}

/// All values of a header, each of which may be a list.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty()).collect()
}

fn switching(to: &'static str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    answer
}

pub(crate) fn refusal(status: StatusCode, message: &str) -> Answer {
    let mut answer = Response::new(Full::from(format!("{message}\n")));
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");

    #[test]
    fn the_clients_first_protocol_that_is_served_is_taken() {
        let kubectl = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            KEY,
            ("sec-websocket-protocol", "v9.channel.k8s.io, v5.channel.k8s.io,v4.channel.k8s.io"),
        ]);
        let (upgrade, answer) = negotiate(&kubectl, &["v4.channel.k8s.io", "v5.channel.k8s.io"], &[], false).unwrap();
        assert_eq!(upgrade, Upgrade::WebSocket("v5.channel.k8s.io"));
        assert_eq!(answer.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let old = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ]);
        let (upgrade, answer) = negotiate(&old, &[], &["v4.channel.k8s.io"], false).unwrap();
        assert_eq!(upgrade, Upgrade::Spdy("v4.channel.k8s.io"));
        assert_eq!(answer.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    }

    #[test]
    fn what_cannot_be_agreed_upon_is_refused() {
        let status = |pairs: &[(&'static str, &'static str)]| {
            negotiate(&headers(pairs), &["a"], &["b"], false).unwrap_err().status().as_u16()
        };
        assert_eq!(status(&[]), 400);
        assert_eq!(status(&[("connection", "upgrade"), ("upgrade", "h2c")]), 400);
        assert_eq!(status(&[("connection", "upgrade"), ("upgrade", "websocket")]), 400);
        assert_eq!(status(&[("connection", "upgrade"), ("upgrade", "websocket"), KEY]), 400);
        assert_eq!(status(&[("connection", "upgrade"), ("upgrade", "SPDY/3.1")]), 403);
    }
}
