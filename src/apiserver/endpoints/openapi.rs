//! `/openapi/v2` and `/openapi/v3`: made when somebody first asks, kept compressed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::OnceLock;

use api::{Failure, Verb};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use schema::Types;
use schema::openapi::{self, Endpoint};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use super::descriptions::Descriptions;
use super::discovery;
use crate::failures;
use crate::http::body::Body;
use crate::http::{negotiate, respond};
use crate::server::ApiServer;

/// One document, compressed, with the hash of its content.
struct Document {
    packed: Bytes,
    hash: String,
}

struct Documents {
    /// By path below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
    v3: BTreeMap<String, Document>,
    v2: Document,
}

static DOCUMENTS: OnceLock<Documents> = OnceLock::new();

pub async fn answer(server: &ApiServer, parts: &[&str], headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    if matches!(parts, ["openapi", "v2"]) {
        // The binary form of version 2 is not made; whoever takes nothing else is told.
        negotiate::form(headers)?;
    }
    let documents = match DOCUMENTS.get() {
        Some(documents) => documents,
        None => {
            // A tenth of a second of work, which other requests need not wait for.
            let server = server.clone();
            let made = tokio::task::spawn_blocking(move || {
                let descriptions = Descriptions::unpack()?;
                Ok::<_, serde_json::Error>(DOCUMENTS.get_or_init(|| make(&server, &descriptions)))
            });
            made.await.map_err(Failure::internal)?.map_err(Failure::internal)?
        }
    };
    match parts {
        ["openapi", "v2"] => send(&documents.v2, headers),
        ["openapi", "v3"] => {
            let paths: Map<String, Value> = documents
                .v3
                .iter()
                .map(|(path, document)| {
                    let url = format!("/openapi/v3/{path}?hash={}", document.hash);
                    (path.clone(), json!({"serverRelativeURL": url}))
                })
                .collect();
            Ok(respond::json(200, &json!({"paths": paths})))
        }
        ["openapi", "v3", rest @ ..] => {
            send(documents.v3.get(&rest.join("/")).ok_or_else(failures::no_such_path)?, headers)
        }
        _ => Err(failures::no_such_path()),
    }
}

fn send(document: &Document, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    let etag = format!("\"{}\"", document.hash);
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if negotiate::gzip(headers) {
        let mut response = respond::bytes(200, "application/json", document.packed.clone());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut plain = Vec::new();
        GzDecoder::new(document.packed.as_ref()).read_to_end(&mut plain).map_err(Failure::internal)?;
        respond::bytes(200, "application/json", plain.into())
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&etag).map_err(Failure::internal)?);
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    // The hash in the path names the content.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(response)
}

fn make(server: &ApiServer, descriptions: &Descriptions) -> Documents {
    let describe = |definition: &str, field: Option<&str>| descriptions.of(definition, field).map(str::to_owned);
    let rows: Vec<_> = server.rows().collect();
    let verbs: Vec<Vec<openapi::Verb>> = rows
        .iter()
        .flat_map(|row| std::iter::once(&row.verbs).chain(row.subresources.iter().map(|one| &one.verbs)))
        .map(|verbs| verbs.iter().map(|verb| translated(*verb)).collect())
        .collect();
    let mut verbs = verbs.iter();
    let mut endpoints: Vec<Endpoint<'_>> = Vec::new();
    for row in &rows {
        let resource = &row.resource;
        let whole = Endpoint {
            group: &resource.group,
            version: &resource.version,
            resource: &resource.plural,
            kind: &row.kind,
            namespaced: row.namespaced,
            subresource: None,
            body: None,
            verbs: verbs.next().map_or(&[], Vec::as_slice),
        };
        if !row.verbs.is_empty() {
            endpoints.push(whole);
        }
        for one in &row.subresources {
            let own = one.kind == row.kind && one.group.is_empty();
            let group = if one.version.is_empty() { &resource.group } else { &one.group };
            let version = if one.version.is_empty() { &resource.version } else { &one.version };
            let streams = matches!(one.name.as_ref(), "exec" | "attach" | "portforward" | "proxy" | "log");
            let verbs = verbs.next().map_or(&[][..], Vec::as_slice);
            if !streams {
                let body = (!own).then_some((group.as_ref(), version.as_ref(), one.kind.as_ref()));
                endpoints.push(Endpoint { subresource: Some(&one.name), body, verbs, ..whole });
            }
        }
    }
    let types = Types::builtin();
    let mut v3 = BTreeMap::new();
    v3.insert("api/v1".to_owned(), packed(&openapi::v3(types, "", "v1", &endpoints, &describe)));
    for (group, versions) in discovery::groups(server) {
        for version in versions {
            let document = openapi::v3(types, &group, &version, &endpoints, &describe);
            v3.insert(format!("apis/{group}/{version}"), packed(&document));
        }
    }
    let v2 = packed(&openapi::v2(types, &endpoints, &server.config().git_version, &describe));
    Documents { v3, v2 }
}

fn packed(document: &Value) -> Document {
    let plain = document.to_string();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let written = encoder.write_all(plain.as_bytes()).and_then(|()| encoder.finish());
    Document { packed: written.unwrap_or_default().into(), hash: hex::encode_upper(Sha512::digest(plain.as_bytes())) }
}

fn translated(verb: Verb) -> openapi::Verb {
    match verb {
        Verb::Get => openapi::Verb::Get,
        Verb::List => openapi::Verb::List,
        Verb::Watch => openapi::Verb::Watch,
        Verb::Create => openapi::Verb::Create,
        Verb::Update => openapi::Verb::Update,
        Verb::Patch => openapi::Verb::Patch,
        Verb::Delete => openapi::Verb::Delete,
        Verb::DeleteCollection => openapi::Verb::DeleteCollection,
    }
}
