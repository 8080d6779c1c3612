//! JSON with line breaks, for who reads it: browsers and command line tools, and who asks with `?pretty`.

use bytes::Bytes;
use futures::StreamExt;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Request, Response};

use super::body::Body;

/// Programs whose answers people read (upstream tells them by the same beginnings).
const READERS: [&[u8]; 3] = [b"curl", b"Wget", b"Mozilla/5.0"];
const INDENT: &[u8] = b"  ";

/// Whether JSON is to be indented. The word in the query counts before the program; what is neither true nor false
/// counts as false.
pub fn wanted(headers: &HeaderMap, query: Option<&str>) -> bool {
    if let Some(query) = query.filter(|query| query.contains("pretty")) {
        let value = query.split('&').find_map(|pair| pair.strip_prefix("pretty="));
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            return matches!(value, "1" | "t" | "T" | "TRUE" | "true" | "True");
        }
    }
    let agent = headers.get(USER_AGENT).map(|agent| agent.as_bytes()).unwrap_or_default();
    READERS.iter().any(|reader| agent.starts_with(reader))
}

/// Whoever reads an answer gets it as it is made: what is indented is not compressed.
pub fn prepare<B>(request: &mut Request<B>) -> bool {
    let path = request.uri().path();
    // Documents for programs are sent as they are kept, and what others answer as they answer it.
    let wanted =
        !path.starts_with("/openapi") && !path.contains("/proxy") && wanted(request.headers(), request.uri().query());
    if wanted {
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    wanted
}

/// The same answer, indented if it is JSON.
pub fn indented(response: Response<Body>) -> Response<Body> {
    let is_json =
        response.headers().get(CONTENT_TYPE).is_some_and(|media| media.as_bytes().starts_with(b"application/json"));
    if !is_json || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    response.map(|body| {
        let mut indenter = Indenter::default();
        match body {
            Body::Full(None) => Body::Full(None),
            Body::Full(Some(bytes)) => Body::full(indenter.feed(&bytes)),
            Body::Stream(stream) => Body::stream(stream.map(move |piece| indenter.feed(&piece))),
        }
    })
}

/// Puts in line breaks and indentation as JSON goes by, piece by piece, in the form of Go's `json.MarshalIndent`.
#[derive(Default)]
struct Indenter {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// An object or list has begun and nothing of it was seen.
    opened: bool,
}

impl Indenter {
    fn feed(&mut self, piece: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(piece.len() * 2);
        for &byte in piece {
            if self.in_text {
                out.push(byte);
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => continue,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if !std::mem::take(&mut self.opened) {
                        self.line(&mut out);
                    }
                    out.push(byte);
                    continue;
                }
                _ => {}
            }
            if std::mem::take(&mut self.opened) {
                self.line(&mut out);
            }
            out.push(byte);
            match byte {
                b'"' => self.in_text = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    self.opened = true;
                }
                b',' => self.line(&mut out),
                b':' => out.push(b' '),
                _ => {}
            }
        }
        out.into()
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        for _ in 0..self.depth {
            out.extend_from_slice(INDENT);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn people_are_told_by_their_programs_and_by_the_query() {
        let of = |agent: &'static str, query: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_static(agent));
            wanted(&headers, query)
        };
        assert!(of("curl/8.0", None) && of("Mozilla/5.0 (X11)", Some("limit=5")) && !of("kubectl/v1.36", None));
        assert!(!of("curl/8.0", Some("pretty=false")) && !of("curl/8.0", Some("limit=5&pretty=xyz")));
        assert!(of("kubectl/v1.36", Some("pretty=true")) && of("kubectl/v1.36", Some("pretty=1")));
        assert!(of("curl/8.0", Some("pretty")) && !of("kubectl/v1.36", Some("pretty")));
    }

    #[test]
    fn pieces_are_indented_as_the_whole_is() {
        let value = json!({"a": [1, {"b": "x, {\"y\": [] }\\"}], "c": {}, "d": [], "e": null, "f": -1.5e3});
        let compact = value.to_string();
        let whole = Indenter::default().feed(compact.as_bytes());
        assert_eq!(whole, serde_json::to_string_pretty(&value).unwrap());
        for size in 1..7 {
            let mut indenter = Indenter::default();
            let pieces: Vec<u8> = compact.as_bytes().chunks(size).flat_map(|piece| indenter.feed(piece)).collect();
            assert_eq!(pieces, whole, "{size}");
        }
    }
}
