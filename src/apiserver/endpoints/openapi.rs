//! `/openapi/v2` and `/openapi/v3`: made when somebody first asks and when custom resources have changed, kept
//! compressed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use api::{Failure, Row, Verb};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use schema::openapi::{self, CustomKind, Endpoint};
use schema::{Types, structural};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use super::descriptions::Descriptions;
use crate::failures;
use crate::http::body::Body;
use crate::http::{negotiate, respond};
use crate::server::ApiServer;

/// What protobuf is called in requests, now and formerly; answers say the first.
const BINARY: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];
const JSON: &str = "application/json";

/// One document, compressed, with the hash of its content.
struct Document {
    packed: Bytes,
    hash: String,
}

/// The document of everything, in both forms under one hash.
struct Whole {
    json: Document,
    binary: Bytes,
}

/// The documents of a server, made anew when custom resources have changed.
#[derive(Default)]
pub struct OpenApi {
    /// What the built-in kinds give that this server serves.
    built_in: OnceLock<BTreeMap<String, Arc<Document>>>,
    made: ArcSwapOption<Documents>,
}

struct Documents {
    /// Of the custom resources that are in here.
    generation: u64,
    /// By path below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
    v3: BTreeMap<String, Arc<Document>>,
    /// Made when somebody asks for it: it is the larger one, and rarely wanted.
    v2: OnceLock<Whole>,
}

pub async fn answer(server: &ApiServer, parts: &[&str], headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    let form = match parts {
        ["openapi", "v2"] => match negotiate::first_of(headers, &[JSON, BINARY[0], BINARY[1]]) {
            Some(JSON) => JSON,
            Some(_) => BINARY[0],
            None => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
                return Ok(response);
            }
        },
        _ => JSON,
    };
    let documents = documents(server).await?;
    match parts {
        ["openapi", "v2"] => {
            if documents.v2.get().is_none() {
                let (server, documents) = (server.clone(), documents.clone());
                let making = move || {
                    documents.v2.get_or_init(|| make_v2(&server));
                };
                tokio::task::spawn_blocking(making).await.map_err(Failure::internal)?;
            }
            let whole = documents.v2.get().ok_or_else(|| Failure::internal("no document was made"))?;
            let packed = if form == JSON { &whole.json.packed } else { &whole.binary };
            send(packed, &whole.json.hash, form, headers)
        }
        ["openapi", "v3"] => {
            let mut paths: Map<String, Value> = documents
                .v3
                .iter()
                .map(|(path, document)| {
                    let url = format!("/openapi/v3/{path}?hash={}", document.hash);
                    (path.clone(), json!({"serverRelativeURL": url}))
                })
                .collect();
            // Documents of aggregated servers are asked of them.
            for ((group, version), offer) in server.aggregator().documents().offers().iter() {
                if let Some(url) = &offer.openapi {
                    paths.insert(format!("apis/{group}/{version}"), json!({"serverRelativeURL": url}));
                }
            }
            Ok(respond::json(200, &json!({"paths": paths})))
        }
        ["openapi", "v3", rest @ ..] => {
            let document = documents.v3.get(&rest.join("/")).ok_or_else(failures::no_such_path)?;
            send(&document.packed, &document.hash, form, headers)
        }
        _ => Err(failures::no_such_path()),
    }
}

/// The documents as they are now.
async fn documents(server: &ApiServer) -> Result<Arc<Documents>, Failure> {
    let made = &server.openapi().made;
    let generation = server.custom().generation();
    if let Some(documents) = made.load_full().filter(|documents| documents.generation == generation) {
        return Ok(documents);
    }
    // A tenth of a second of work, which other requests need not wait for.
    let making = server.clone();
    let documents = tokio::task::spawn_blocking(move || Arc::new(make(&making, generation)));
    let documents = documents.await.map_err(Failure::internal)?;
    made.store(Some(documents.clone()));
    Ok(documents)
}

fn send(packed: &Bytes, hash: &str, form: &'static str, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    let etag = format!("\"{hash}\"");
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if negotiate::gzip(headers) {
        let mut response = respond::bytes(200, form, packed.clone());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut plain = Vec::new();
        GzDecoder::new(packed.as_ref()).read_to_end(&mut plain).map_err(Failure::internal)?;
        respond::bytes(200, form, plain.into())
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&etag).map_err(Failure::internal)?);
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    // The hash in the path names the content.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(response)
}

fn make(server: &ApiServer, generation: u64) -> Documents {
    let types = Types::builtin();
    let built_in = server.openapi().built_in.get_or_init(|| {
        let served = |row: &&Arc<Row>| server.config().runtime_config.serves(row);
        let rows: Vec<_> = api::rows().iter().filter(served).cloned().collect();
        let descriptions = Descriptions::unpack();
        let describe = |definition: &str, field: Option<&str>| descriptions.of(definition, field).map(str::to_owned);
        with_endpoints(&rows, |endpoints| {
            let group_versions: BTreeSet<(&str, &str)> = endpoints.iter().map(|e| (e.group, e.version)).collect();
            group_versions
                .into_iter()
                .map(|(group, version)| {
                    let document = openapi::v3(types, group, version, endpoints, &[], &describe);
                    (path_of(group, version), Arc::new(packed(&document)))
                })
                .collect()
        })
    });
    let mut v3 = built_in.clone();
    let rows = server.custom().rows();
    if !rows.is_empty() {
        let descriptions = Descriptions::unpack();
        let describe = |definition: &str, field: Option<&str>| descriptions.of(definition, field).map(str::to_owned);
        let custom: Vec<CustomKind> = rows.iter().flat_map(|row| custom_kinds(row, false, &describe)).collect();
        with_endpoints(&rows, |endpoints| {
            let group_versions: BTreeSet<(&str, &str)> = endpoints.iter().map(|e| (e.group, e.version)).collect();
            for (group, version) in group_versions {
                let document = openapi::v3(types, group, version, endpoints, &custom, &describe);
                v3.insert(path_of(group, version), Arc::new(packed(&document)));
            }
        });
    }
    Documents { generation, v3, v2: OnceLock::new() }
}

fn make_v2(server: &ApiServer) -> Whole {
    let descriptions = Descriptions::unpack();
    let describe = |definition: &str, field: Option<&str>| descriptions.of(definition, field).map(str::to_owned);
    let custom: Vec<CustomKind> =
        server.custom().rows().iter().flat_map(|row| custom_kinds(row, true, &describe)).collect();
    let version = &server.config().git_version;
    with_endpoints(&server.rows(), |endpoints| {
        let document = openapi::v2(Types::builtin(), endpoints, &custom, version, &describe);
        Whole { json: packed(&document), binary: compressed(&openapi::v2_binary(&document)) }
    })
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

const CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The definitions of a custom resource and of its list.
fn custom_kinds(row: &Row, v2: bool, describe: &dyn Fn(&str, Option<&str>) -> Option<String>) -> Vec<CustomKind> {
    let Some(compiled) = row.custom.as_ref().and_then(|version| version.compiled()) else { return Vec::new() };
    let (group, version) = (row.resource.group.as_ref(), row.resource.version.as_ref());
    // What is said about these fields is the same for every kind.
    let texts = |field: &str| describe("io.k8s.api.core.v1.ConfigMap", Some(field));
    let schema = compiled.schema.as_ref();
    let mut definition =
        if v2 { structural::publish_v2(schema, &texts) } else { structural::publish_v3(schema, &texts) };
    let gvk = |kind: &str| json!([{"group": group, "version": version, "kind": kind}]);
    definition.insert("x-kubernetes-group-version-kind".to_owned(), gvk(&row.kind));
    let selectable: Vec<Value> = row.selectable_fields.iter().map(|field| json!({"fieldPath": field.label})).collect();
    let with_selectable = |definition: &mut serde_json::Map<String, Value>| {
        if !selectable.is_empty() {
            definition.insert("x-kubernetes-selectable-fields".to_owned(), selectable.clone().into());
        }
    };
    with_selectable(&mut definition);
    let prefix = if v2 { "#/definitions/" } else { "#/components/schemas/" };
    let reference = |name: &str| {
        let reference = json!({"$ref": format!("{prefix}{name}")});
        if v2 { reference } else { json!({"allOf": [reference]}) }
    };
    let name = CustomKind::name_of(group, version, &row.kind);
    let with_text = |mut schema: Value, text: Option<String>| {
        if let (Some(schema), Some(text)) = (schema.as_object_mut(), text) {
            schema.insert("description".to_owned(), text.into());
        }
        schema
    };
    let items = json!({"type": "array", "items": {"$ref": format!("{prefix}{name}")}});
    let metadata = reference("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
    let mut list = json!({
        "type": "object",
        "description": format!("{} is a list of {}", row.list_kind, row.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": with_text(json!({"type": "string"}), texts("apiVersion")),
            "kind": with_text(json!({"type": "string"}), texts("kind")),
            "metadata": with_text(metadata, Some(LIST_METADATA.to_owned())),
            "items": with_text(items, Some(format!("List of {}. More info: {CONVENTIONS}", row.resource.plural))),
        },
        "x-kubernetes-group-version-kind": gvk(&row.list_kind),
    });
    if let Some(list) = list.as_object_mut() {
        with_selectable(list);
    }
    let kind = |kind: &str, name: String, definition: Value| CustomKind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        name,
        definition,
    };
    let list_name = CustomKind::name_of(group, version, &row.list_kind);
    vec![kind(&row.kind, name, Value::Object(definition)), kind(&row.list_kind, list_name, list)]
}

/// Hands on what the rows serve.
fn with_endpoints<T>(rows: &[Arc<Row>], then: impl FnOnce(&[Endpoint<'_>]) -> T) -> T {
    let verbs: Vec<Vec<openapi::Verb>> = rows
        .iter()
        .flat_map(|row| std::iter::once(&row.verbs).chain(row.subresources.iter().map(|one| &one.verbs)))
        .map(|verbs| verbs.iter().filter_map(|verb| translated(*verb)).collect())
        .collect();
    let mut verbs = verbs.iter();
    let mut endpoints: Vec<Endpoint<'_>> = Vec::new();
    for row in rows {
        let resource = &row.resource;
        let whole = Endpoint {
            group: &resource.group,
            version: &resource.version,
            resource: &resource.plural,
            kind: &row.kind,
            list_kind: Some(&row.list_kind),
            custom: row.custom.is_some(),
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
            let verbs = verbs.next().map_or(&[][..], Vec::as_slice);
            let body = (!own).then_some((group.as_ref(), version.as_ref(), one.kind.as_ref()));
            endpoints.push(Endpoint { subresource: Some(&one.name), body, verbs, ..whole });
        }
    }
    then(&endpoints)
}

fn packed(document: &Value) -> Document {
    let plain = document.to_string();
    Document { packed: compressed(plain.as_bytes()), hash: hex::encode_upper(Sha512::digest(plain.as_bytes())) }
}

fn compressed(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.unwrap_or_default().into()
}

fn translated(verb: Verb) -> Option<openapi::Verb> {
    Some(match verb {
        Verb::Get => openapi::Verb::Get,
        Verb::List => openapi::Verb::List,
        Verb::Watch => openapi::Verb::Watch,
        Verb::Create => openapi::Verb::Create,
        Verb::Update => openapi::Verb::Update,
        Verb::Patch => openapi::Verb::Patch,
        Verb::Delete => openapi::Verb::Delete,
        Verb::DeleteCollection => openapi::Verb::DeleteCollection,
        Verb::Options => return None,
    })
}
