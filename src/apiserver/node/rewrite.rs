//! Links in answers that came through a proxy: what leads to the other end's root is made to lead through the proxy.
//!
//! Only links with a path from the root are meant, to no host or to the one that was asked. Pages that are longer than
//! [`PAGE_BYTES_MAX`] or in an encoding other than gzip are passed on as they are.

use std::borrow::Cow;
use std::io::{Read, Write};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http_body_util::BodyExt;

use crate::http::body::Body;

/// A page that is rewritten is held whole, so long at most, compressed and not.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Attributes that are links, by tag; as HTML 4 and 5 have them.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Tags between which nothing is a tag but their own end.
const RAW: &[&str] = &["iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp"];

/// The proxy through which an answer came.
pub struct Proxy {
    /// The path before the one that was passed on.
    pub prefix: String,
    /// The other end's address, as links might have it.
    pub address: String,
    /// The host that the client asked.
    pub host: String,
}

impl Proxy {
    /// The header `Location`, made to lead through the proxy.
    pub fn redirect(&self, headers: &mut HeaderMap) {
        let to = headers.get(LOCATION).and_then(|location| location.to_str().ok()).map(|location| self.link(location));
        if let Some(Ok(location)) = to.map(|to| HeaderValue::from_str(&to)) {
            headers.insert(LOCATION, location);
        }
    }

    /// The body, with its links made to lead through the proxy if it is a page.
    pub async fn page(&self, headers: &HeaderMap, body: Body) -> Body {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let encoding = text(CONTENT_ENCODING).trim();
        let kind = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        if headers.contains_key(LOCATION) || kind != "text/html" || !matches!(encoding, "" | "gzip") {
            return body;
        }
        let mut pieces = body.into_data_stream().filter_map(|piece| std::future::ready(piece.ok()));
        let mut page = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            page.extend_from_slice(&piece);
            if page.len() > PAGE_BYTES_MAX {
                return Body::stream(futures::stream::once(std::future::ready(page.freeze())).chain(pieces));
            }
        }
        let rewritten = if encoding == "gzip" { self.compressed(&page) } else { Some(self.html(&page)) };
        Body::full(rewritten.map_or_else(|| page.freeze(), Bytes::from))
    }

    fn compressed(&self, page: &[u8]) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        MultiGzDecoder::new(page).take(PAGE_BYTES_MAX as u64 + 1).read_to_end(&mut plain).ok()?;
        if plain.len() > PAGE_BYTES_MAX {
            return None;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.html(&plain)).ok()?;
        encoder.finish().ok()
    }

    /// Where a link leads when it is followed through the proxy.
    fn link<'a>(&self, link: &'a str) -> Cow<'a, str> {
        let (before, host, path) = split(link);
        let elsewhere = !host.is_empty() && host != self.address && host != self.host;
        if elsewhere || !path.starts_with('/') {
            return Cow::Borrowed(link);
        }
        // The client's host stays; the other end's is nothing that the client reaches.
        let root = if !host.is_empty() && host == self.host { format!("{before}{host}") } else { String::new() };
        let prefix = if path.starts_with(&self.prefix) { "" } else { &self.prefix };
        Cow::Owned(format!("{root}{prefix}{path}"))
    }

    /// A page, with the links in its tags rewritten and everything else as it was.
    fn html(&self, page: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len() + 256);
        let mut rest = page;
        while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
            let (text, tag) = rest.split_at(at);
            out.extend_from_slice(text);
            if tag.starts_with(b"<!--") {
                let end = find(tag, b"-->").map_or(tag.len(), |at| at + 3);
                rest = copy(&mut out, tag, end);
                continue;
            }
            if !tag.get(1).is_some_and(u8::is_ascii_alphabetic) {
                rest = copy(&mut out, tag, 1);
                continue;
            }
            let name = tag.get(1..).unwrap_or_default();
            let name = name.split(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>')).next();
            let name = name.map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).unwrap_or_default();
            rest = self.tag(&mut out, tag, &name);
            if RAW.contains(&name.as_str()) {
                let end = find(rest, format!("</{name}").as_bytes()).unwrap_or(rest.len());
                rest = copy(&mut out, rest, end);
            }
        }
        out.extend_from_slice(rest);
        out
    }

    /// One start tag, written to `out`; what follows it.
    fn tag<'a>(&self, out: &mut Vec<u8>, tag: &'a [u8], name: &str) -> &'a [u8] {
        let links = LINKS.iter().find(|(tag, _)| *tag == name).map_or(&[][..], |(_, links)| links);
        let mut rest = copy(out, tag, name.len() + 1);
        loop {
            let gap = rest.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b'/').count();
            rest = copy(out, rest, gap);
            match rest.first() {
                None => return rest,
                Some(b'>') => return copy(out, rest, 1),
                Some(_) => {}
            }
            let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>' | b'=');
            // An attribute may begin with '=', as a part of its name.
            let length = 1 + rest.iter().skip(1).take_while(|byte| !ends(byte)).count();
            let key = String::from_utf8_lossy(rest.get(..length).unwrap_or_default()).to_ascii_lowercase();
            rest = copy(out, rest, length);
            let gap = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if rest.get(gap) != Some(&b'=') {
                continue;
            }
            rest = copy(out, rest, gap + 1);
            let gap = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            rest = copy(out, rest, gap);
            let length = match rest.first() {
                Some(quote @ (b'"' | b'\'')) => {
                    rest = copy(out, rest, 1);
                    rest.iter().take_while(|byte| *byte != quote).count()
                }
                _ => rest.iter().take_while(|byte| !byte.is_ascii_whitespace() && **byte != b'>').count(),
            };
            let (value, after) = rest.split_at(length);
            match std::str::from_utf8(value) {
                Ok(value) if links.contains(&key.as_str()) => out.extend_from_slice(self.link(value).as_bytes()),
                _ => out.extend_from_slice(value),
            }
            let quoted = usize::from(matches!(after.first(), Some(b'"' | b'\'')));
            rest = copy(out, after, quoted);
        }
    }
}

/// Copies the first `count` bytes; what follows them.
fn copy<'a>(out: &mut Vec<u8>, bytes: &'a [u8], count: usize) -> &'a [u8] {
    let (copied, rest) = bytes.split_at(count.min(bytes.len()));
    out.extend_from_slice(copied);
    rest
}

/// Where the bytes have this, in capitals or not.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted))
}

/// A link as what comes before its host, the host, and the rest.
fn split(link: &str) -> (&str, &str, &str) {
    let scheme =
        link.find("//").filter(|at| link.get(..*at).is_some_and(|scheme| scheme.is_empty() || scheme.ends_with(':')));
    let Some(at) = scheme.map(|at| at + 2) else { return ("", "", link) };
    let (before, rest) = link.split_at(at);
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    (before, host, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> Proxy {
        Proxy { prefix: "/api/p/proxy".to_owned(), address: "10.42.0.7:80".to_owned(), host: "kube:6443".to_owned() }
    }

    #[test]
    fn links_from_the_root_lead_through_the_proxy() {
        for (link, wanted) in [
            ("/a?b#c", "/api/p/proxy/a?b#c"),
            ("/", "/api/p/proxy/"),
            ("a/b", "a/b"),
            ("?q", "?q"),
            ("#top", "#top"),
            ("", ""),
            ("/api/p/proxy/a", "/api/p/proxy/a"),
            ("http://10.42.0.7:80/a", "/api/p/proxy/a"),
            ("//10.42.0.7:80/a", "/api/p/proxy/a"),
            ("https://kube:6443/a", "https://kube:6443/api/p/proxy/a"),
            ("http://example.com/a", "http://example.com/a"),
            ("mailto:a@b.c//d", "mailto:a@b.c//d"),
            ("http://10.42.0.7:80", "http://10.42.0.7:80"),
        ] {
            assert_eq!(proxy().link(link), wanted);
        }
    }

    #[test]
    fn only_attributes_that_are_links_change_in_a_page() {
        let html = |page: &str| String::from_utf8(proxy().html(page.as_bytes())).unwrap();
        for (page, wanted) in [
            (r#"<a href="/x">/x</a>"#, r#"<a href="/api/p/proxy/x">/x</a>"#),
            ("<A class=b HREF = '/x' id=/y>", "<A class=b HREF = '/api/p/proxy/x' id=/y>"),
            ("<img src=/x.png/>", "<img src=/api/p/proxy/x.png/>"),
            (r#"<p href="/x"><br/>"#, r#"<p href="/x"><br/>"#),
            (r#"<!-- <a href="/x"> --><a href="/y">"#, r#"<!-- <a href="/x"> --><a href="/api/p/proxy/y">"#),
            (
                r#"<script src="/s.js">"<a href='/x'>"</SCRIPT><a href='/y'>"#,
                r#"<script src="/api/p/proxy/s.js">"<a href='/x'>"</SCRIPT><a href='/api/p/proxy/y'>"#,
            ),
            ("a < b <a href=\"/x", "a < b <a href=\"/api/p/proxy/x"),
            ("<a", "<a"),
            ("<a =/x href>", "<a =/x href>"),
            ("<!-- <a href='/x'>", "<!-- <a href='/x'>"),
        ] {
            assert_eq!(html(page), wanted);
        }
    }

    #[tokio::test]
    async fn compressed_pages_are_rewritten_and_long_ones_are_not() {
        let through = async |kind: &'static str, encoding: &'static str, body: Vec<u8>| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            let body = proxy().page(&headers, Body::full(body)).await;
            body.collect().await.unwrap().to_bytes().to_vec()
        };
        let page = b"<a href=/x>".to_vec();
        let gzip = |page: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(page).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(through("text/html; charset=utf-8", "", page.clone()).await, b"<a href=/api/p/proxy/x>");
        assert_eq!(through("text/plain", "", page.clone()).await, page);
        assert_eq!(through("text/html", "br", page.clone()).await, page);
        assert_eq!(through("text/html", "gzip", page.clone()).await, page, "it is no gzip");
        let mut plain = Vec::new();
        let compressed = through("text/html", "gzip", gzip(&page)).await;
        MultiGzDecoder::new(&compressed[..]).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, b"<a href=/api/p/proxy/x>");
        let long = [page, vec![b' '; PAGE_BYTES_MAX]].concat();
        assert_eq!(through("text/html", "", long.clone()).await, long);
        assert_eq!(through("text/html", "gzip", gzip(&long)).await, gzip(&long));
    }
}
