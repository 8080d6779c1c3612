//! The doors through which the targets of `fuzz/` reach decoders that nobody else calls from outside. They are there in
//! builds for fuzzing only.

use std::path::Path;

use api::{Call, PatchKind, Resource, Row, Verb};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::config::RequestHeaderOptions;
use crate::request::{self, Target};
use crate::{audit, authn, encryption, flags, pipeline, verbs, webhook};

/// Bodies: the first byte says of which media type, and whether a ConfigMap is created, changed or deleted.
pub fn body(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let Some(row) = Row::find("", "v1", "configmaps") else { return };
    let mut call = Call::new(Verb::Create, Resource::new("", "v1", "configmaps"));
    let media_type = match choice % 6 {
        0 => "application/json",
        1 => "application/yaml",
        2 => "application/vnd.kubernetes.protobuf",
        3 => {
            call.verb = Verb::Delete;
            "application/json"
        }
        patch => {
            call.verb = Verb::Patch;
            call.options.patch = Some(if patch == 4 { PatchKind::Apply } else { PatchKind::Json });
            "application/apply-patch+yaml"
        }
    };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
    let _ = pipeline::decode(row, &call, &headers, &Bytes::copy_from_slice(bytes));
}

/// Paths with their parameters, as `path?query`.
pub fn uri(text: &str) {
    let (path, parameters) = text.split_once('?').unwrap_or((text, ""));
    let target = Target::parse(path);
    let parameters = request::query(parameters);
    if let (Some(target), Ok((_, watch))) = (target, request::options(&parameters)) {
        let _ = request::verb(&http::Method::GET, &target, watch);
    }
    for (_, value) in &parameters {
        let _ = verbs::revision(Some(value));
        let _ = request::patch_kind(value);
    }
    let _ = request::unescape(&request::escape(text), false);
}

pub fn continue_token(text: &str) {
    let _ = verbs::continues(text);
}

pub fn audit_policy(text: &str) {
    let _ = audit::Policy::parse(text);
}

pub fn encryption_config(text: &str) {
    let _ = encryption::Parsed::parse(text);
}

/// What is stored, for each of the ciphers.
pub fn sealed(bytes: &[u8]) {
    use encryption::Cipher;
    let key = [7; 32];
    for cipher in [Cipher::cbc(&key), Cipher::gcm(&key), Cipher::secretbox(&key), Cipher::derived(&key)] {
        let Some(cipher) = cipher else { continue };
        let _ = cipher.open(bytes, b"/registry/secrets/a/b");
        let mut out = Vec::new();
        if cipher.seal(bytes, b"/registry/secrets/a/b", &mut out).is_ok() {
            let opened = cipher.open(&out, b"/registry/secrets/a/b").ok();
            assert_eq!(opened.as_deref(), Some(bytes), "what is sealed opens again");
        }
    }
    let _ = <encryption::EncryptedObject as prost::Message>::decode(bytes);
}

/// Tokens: whole ones, and any payload in one that is otherwise well formed.
pub fn token(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = authn::issuer(text);
        let _ = jsonwebtoken::decode_header(text);
    }
    let payload = URL_SAFE_NO_PAD.encode(input);
    let _ = authn::issuer(&format!("e30.{payload}.e30"));
    let _ = serde_json::from_slice::<authn::Claims>(input);
}

pub fn authentication_config(text: &str) {
    let _ = authn::AuthenticationConfiguration::parse(text, &[]);
}

pub fn kubeconfig(text: &str) {
    // Paths in it lead nowhere.
    let _ = webhook::from_text(text, Path::new("/nonexistent"));
}

/// Headers of a proxy in front, one a line.
pub fn front_proxy(text: &str) {
    let mut options = RequestHeaderOptions::new("/nonexistent");
    options.username_headers = vec!["x-remote-user".to_owned()];
    options.uid_headers = vec!["x-remote-uid".to_owned()];
    options.group_headers = vec!["x-remote-group".to_owned()];
    options.extra_headers_prefix = vec!["x-remote-extra-".to_owned()];
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    let pairs = pairs.filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?))
    });
    let mut headers: HeaderMap = pairs.collect();
    let _ = authn::identify_by_headers(&options, &headers);
    authn::forget_headers(&options, &mut headers);
}

pub fn duration(text: &str) {
    let _ = flags::parse_duration(text);
}
