//! Discovery: which groups, versions, resources and verbs there are, in one document or in many.

use api::{Failure, Row};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

use crate::aggregator::{groups, own_group};
use crate::failures;
use crate::http::body::Body;
use crate::http::{negotiate, respond};
use crate::server::ApiServer;

pub fn answer(server: &ApiServer, parts: &[&str], headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    let host = std::net::SocketAddr::new(server.config().advertise_address, server.config().advertise_port);
    match parts {
        ["api" | "apis"] => {
            let legacy = parts == ["api"];
            if let Some(version) = negotiate::aggregated_discovery(headers) {
                return aggregated(server, legacy, version, headers);
            }
            let document = if legacy {
                json!({
                    "kind": "APIVersions", "versions": ["v1"],
                    "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host.to_string()}],
                })
            } else {
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(server).iter().map(|(name, versions)| group(name, versions)).collect::<Vec<_>>()})
            };
            Ok(respond::json(200, &document))
        }
        ["api", "v1"] => Ok(respond::json(200, &resources(server, "", "v1"))),
        ["apis", name] => {
            let offered = groups(server).into_iter().find(|(one, _)| one == name);
            let (name, versions) = offered.or_else(|| own_group(server, name)).ok_or_else(failures::no_such_path)?;
            let mut document = group(&name, &versions);
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            Ok(respond::json(200, &document))
        }
        ["apis", name, version] => {
            let all = groups(server).into_iter().chain(own_group(server, name));
            let mut all = all.filter(|(one, _)| one == name);
            if !all.any(|(_, versions)| versions.iter().any(|one| one == version)) {
                return Err(failures::no_such_path());
            }
            Ok(respond::json(200, &resources(server, name, version)))
        }
        _ => Err(failures::no_such_path()),
    }
}

/// All paths that answer, for `/`.
pub fn paths(server: &ApiServer) -> Vec<String> {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for (name, versions) in groups(server) {
        paths.push(format!("/apis/{name}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{name}/{version}")));
    }
    paths.sort();
    paths
}

fn group(name: &str, versions: &[String]) -> Value {
    let of = |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({
        "name": name,
        "versions": versions.iter().map(of).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(of),
    })
}

fn rows_of(server: &ApiServer, group: &str, version: &str) -> Vec<Arc<Row>> {
    let mut rows = server.rows();
    rows.retain(|row| row.resource.group == group && row.resource.version == version);
    rows.sort_by(|a, b| a.resource.plural.cmp(&b.resource.plural));
    rows
}

/// Verbs of a row; of custom resources in their own order, and fewer while they are being deleted.
fn verbs_of(row: &Row) -> Vec<&'static str> {
    let Some(version) = &row.custom else { return verbs(&row.verbs) };
    let left = |verb: &&api::Verb| {
        !version.terminating || !matches!(verb, api::Verb::Create | api::Verb::Update | api::Verb::Patch)
    };
    row.verbs.iter().filter(left).map(|verb| verb.as_str()).collect()
}

fn verbs(verbs: &[api::Verb]) -> Vec<&'static str> {
    let mut names: Vec<&str> = verbs.iter().map(|verb| verb.as_str()).collect();
    names.sort_unstable();
    names
}

/// `APIResourceList`.
fn resources(server: &ApiServer, group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for row in rows_of(server, group, version) {
        if !row.verbs.is_empty() {
            let mut entry = json!({
                "name": row.resource.plural, "singularName": row.singular, "namespaced": row.namespaced,
                "kind": row.kind, "verbs": verbs_of(&row),
            });
            if !row.short_names.is_empty() {
                entry["shortNames"] = json!(row.short_names);
            }
            if !row.categories.is_empty() {
                entry["categories"] = json!(row.categories);
            }
            if row.stored {
                entry["storageVersionHash"] = storage_version_hash(&row).into();
            }
            list.push(entry);
        }
        let mut subresources: Vec<_> = row.subresources.iter().collect();
        subresources.sort_by(|a, b| a.name.cmp(&b.name));
        for subresource in subresources {
            let mut entry = json!({
                "name": format!("{}/{}", row.resource.plural, subresource.name), "singularName": "",
                "namespaced": row.namespaced, "kind": subresource.kind, "verbs": verbs(&subresource.verbs),
            });
            if !subresource.version.is_empty() {
                if !subresource.group.is_empty() {
                    entry["group"] = json!(subresource.group);
                }
                entry["version"] = json!(subresource.version);
            }
            list.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut document = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": list});
    if !group.is_empty() {
        document["apiVersion"] = "v1".into();
    }
    document
}

fn storage_version_hash(row: &Row) -> String {
    let storage = &row.storage;
    let digest = Sha256::digest(format!("{}/{}/{}", storage.group, storage.version, row.storage_kind));
    STANDARD.encode(digest.get(..8).unwrap_or_default())
}

/// `APIGroupDiscoveryList`: everything in one document, told apart by its ETag.
fn aggregated(server: &ApiServer, legacy: bool, version: &str, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    let all = if legacy { vec![(String::new(), vec!["v1".to_owned()])] } else { groups(server) };
    let offers = server.aggregator().documents().offers();
    let items: Vec<Value> = all
        .iter()
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    if let Some(offer) = offers.get(&(name.clone(), version.clone())) {
                        let freshness = if offer.fresh { "Current" } else { "Stale" };
                        return json!({"version": version, "freshness": freshness, "resources": offer.resources});
                    }
                    json!({
                        "version": version, "freshness": "Current",
                        "resources": rows_of(server, name, version).iter().map(|row| entry(row)).collect::<Vec<_>>(),
                    })
                })
                .collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items,
    });
    let bytes = Bytes::from(document.to_string());
    let etag = format!("\"{}\"", hex::encode_upper(Sha256::digest(&bytes)));
    let mut response = if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        let mut response = respond::bytes(304, "application/json", Bytes::new());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond::bytes(200, "application/json", bytes)
    };
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(&content_type).map_err(Failure::internal)?);
    headers.insert(ETAG, HeaderValue::from_str(&etag).map_err(Failure::internal)?);
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

fn kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// `APIResourceDiscovery`.
fn entry(row: &Row) -> Value {
    // Of custom resources upstream gives the whole kind.
    let own = match row.custom {
        Some(_) => kind(&row.resource.group, &row.resource.version, &row.kind),
        None => kind("", "", &row.kind),
    };
    let mut entry = json!({
        "resource": row.resource.plural, "singularResource": row.singular,
        "responseKind": own,
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "verbs": verbs_of(row),
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    let mut subresources: Vec<_> = row.subresources.iter().collect();
    subresources.sort_by(|a, b| a.name.cmp(&b.name));
    if !subresources.is_empty() {
        let list: Vec<Value> = subresources
            .into_iter()
            .map(|one| {
                let of_itself = row.custom.is_some() && one.version.is_empty();
                let shown = if of_itself { own.clone() } else { kind(&one.group, &one.version, &one.kind) };
                json!({"subresource": one.name, "verbs": verbs(&one.verbs), "responseKind": shown})
            })
            .collect();
        entry["subresources"] = list.into();
    }
    entry
}
