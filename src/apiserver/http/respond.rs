//! Answers in the form that the client takes.

use std::io::Write;
use std::sync::Arc;

use api::Failure;
use bytes::{BufMut, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, WARNING};
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;

use super::body::Body;
use super::negotiate::{self, Media};
use super::objects::{self, Writer};
use crate::cache::Stored;
use crate::verbs::Listed;

/// Bodies from this size on are compressed for clients that take it (upstream: 128 KiB).
const GZIP_FROM_BYTES: usize = 128 * 1024;
/// Lists are sent in pieces of about this size.
const PIECE_BYTES: usize = 64 * 1024;
/// Objects whose length in protobuf is found before others may run.
const MEASURED_AT_ONCE: usize = 64;

/// A body that is known, as JSON.
pub fn json(code: u16, value: &Value) -> Response<Body> {
    bytes(code, "application/json", Bytes::from(value.to_string()))
}

/// A body that is known.
pub fn bytes(code: u16, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub fn text(code: u16, body: impl Into<Bytes>) -> Response<Body> {
    bytes(code, "text/plain; charset=utf-8", body.into())
}

/// The client is to come again later, in the words of upstream's priority and fairness.
pub fn too_many(retry_after_seconds: u32) -> Response<Body> {
    let mut response = text(429, "Too many requests, please try again later.\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after_seconds));
    response
}

/// A failure as `metav1.Status`.
pub fn failure(failure: &Failure, media: Media) -> Response<Body> {
    let status = failure.to_status();
    let mut response = value(failure.code, &status, media).unwrap_or_else(|_| json(failure.code, &status));
    if let Some(details) = failure.details.as_ref().filter(|details| details.retry_after_seconds > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(details.retry_after_seconds));
    }
    response
}

/// An object that was made for this answer. Fails where protobuf is wanted and the object's kind has none.
pub fn value(code: u16, value: &Value, media: Media) -> Result<Response<Body>, Failure> {
    let body = match media {
        Media::Json => value.to_string().into(),
        Media::Yaml => to_yaml(value).into(),
        Media::Protobuf => objects::protobuf_body(value)?,
    };
    Ok(bytes(code, media.content_type(), body))
}

/// YAML of a JSON value. JSON is YAML, which is what remains should the writer refuse.
pub fn to_yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// Compresses a large body if the client takes it.
pub fn compressed(response: Response<Body>, request: &HeaderMap) -> Response<Body> {
    if !negotiate::gzip(request) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = match body {
        Body::Full(Some(bytes)) if bytes.len() >= GZIP_FROM_BYTES => {
            let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
            match encoder.write_all(&bytes).and_then(|()| encoder.finish()) {
                Ok(packed) => {
                    encoded(&mut parts.headers);
                    Body::full(packed)
                }
                Err(_) => Body::full(bytes),
            }
        }
        body => body,
    };
    Response::from_parts(parts, body)
}

fn encoded(headers: &mut HeaderMap) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// A list, sent piece by piece from the stored bytes.
pub async fn list(mut writer: Writer, listed: Listed, request: &HeaderMap) -> Result<Response<Body>, Failure> {
    let total: usize = listed.objects.iter().map(|object| object.served_bytes_max()).sum();
    let content_type = writer.media().content_type();
    let mut items_bytes = 0;
    for (at, object) in listed.objects.iter().enumerate() {
        items_bytes += writer.item_bytes(object)?;
        if at % MEASURED_AT_ONCE == MEASURED_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
    }
    let head = writer.list_head(&listed, items_bytes)?;
    let mut pieces = Pieces { head, objects: listed.objects.into_iter(), writer, first: true };
    if total <= PIECE_BYTES {
        let mut all = Vec::with_capacity(total + 256);
        while pieces.next(&mut all) {}
        return Ok(bytes(200, content_type, Bytes::from(all)));
    }
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    let body = if total >= GZIP_FROM_BYTES && negotiate::gzip(request) {
        encoded(headers);
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        Body::stream(stream::unfold(Some((pieces, encoder)), |state| async move {
            let (mut pieces, mut encoder) = state?;
            let mut plain = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
            loop {
                plain.clear();
                let more = pieces.next(&mut plain);
                encoder.write_all(&plain).ok()?;
                if !more {
                    return Some((Bytes::from(encoder.finish().ok()?), None));
                }
                let packed = encoder.get_mut();
                if packed.len() >= PIECE_BYTES / 4 {
                    let piece = Bytes::from(std::mem::take(packed));
                    return Some((piece, Some((pieces, encoder))));
                }
                tokio::task::yield_now().await;
            }
        }))
    } else {
        Body::stream(stream::unfold(Some(pieces), |pieces| async move {
            let mut pieces = pieces?;
            let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
            let more = pieces.next(&mut piece);
            Some((Bytes::from(piece), more.then_some(pieces)))
        }))
    };
    *response.body_mut() = body;
    Ok(response)
}

/// All of a list in one piece, as JSON.
pub fn whole_list(listed: Listed) -> Bytes {
    let total: usize = listed.objects.iter().map(|object| object.served_bytes_max()).sum();
    let head = listed.head(&listed.row.api_version(), &listed.row.list_kind);
    let mut all = Vec::with_capacity(total + head.len() + 8);
    all.put_slice(head.as_bytes());
    for (at, object) in listed.objects.iter().enumerate() {
        if at > 0 {
            all.put_u8(b',');
        }
        objects::write_item(&listed.row, object, &mut all);
    }
    all.put_slice(b"]}");
    Bytes::from(all)
}

/// Writes a list's items one after the other.
struct Pieces {
    /// Written with the first piece.
    head: Vec<u8>,
    objects: std::vec::IntoIter<Arc<Stored>>,
    writer: Writer,
    first: bool,
}

impl Pieces {
    /// Appends about one piece; false when it was the last.
    fn next(&mut self, out: &mut Vec<u8>) -> bool {
        out.append(&mut self.head);
        let until = out.len() + PIECE_BYTES;
        while out.len() < until {
            let Some(object) = self.objects.next() else {
                out.put_slice(self.writer.list_tail());
                return false;
            };
            self.writer.item(&object, std::mem::take(&mut self.first), out);
        }
        true
    }
}

/// Texts for the client's user (RFC 7234, warn-code 299).
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    const WARNINGS_MAX: usize = 64;
    const TEXT_BYTES_MAX: usize = 4096;
    for warning in warnings.iter().take(WARNINGS_MAX) {
        let mut text = String::with_capacity(warning.len() + 8);
        for character in warning.chars().take(TEXT_BYTES_MAX) {
            match character {
                '"' | '\\' => {
                    text.push('\\');
                    text.push(character);
                }
                character if character.is_control() => text.push(' '),
                character => text.push(character),
            }
        }
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
