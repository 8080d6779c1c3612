//! What aggregated servers offer: their part of discovery and of OpenAPI, read by the controller and kept.
//!
//! Limitation: `/openapi/v2` describes this server's own resources only; version 3 describes all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::Fields;
use arc_swap::ArcSwap;
use futures::future::join_all;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::availability::Finding;
use super::{Registered, front_proxy};
use crate::server::ApiServer;
use crate::webhook::Endpoint;

const ANSWER_MAX: Duration = Duration::from_secs(5);
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// By group and version.
type Offers = BTreeMap<(String, String), Offer>;

#[derive(Default)]
pub struct Documents {
    offers: ArcSwap<Offers>,
}

/// What one group version offers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// `APIResourceDiscovery`, one for each resource.
    pub resources: Vec<Value>,
    /// It was read when it was last tried.
    pub fresh: bool,
    /// Where its OpenAPI version 3 document is, such as `/openapi/v3/apis/example.com/v1?hash=…`.
    pub openapi: Option<String>,
}

impl Documents {
    pub fn offers(&self) -> Arc<Offers> {
        self.offers.load_full()
    }

    /// Reads anew what the servers that answer offer; of the others what was read last stays, marked as stale.
    pub async fn refresh(&self, server: &ApiServer, findings: &[(Arc<Registered>, Finding)]) {
        let known = self.offers();
        let read = findings.iter().filter(|(one, _)| one.remote.is_some()).map(|(one, finding)| {
            let place = (one.group.clone(), one.version.clone());
            let known = known.get(&place).cloned();
            async move {
                let offer = if finding.status == "True" { read(server, one).await } else { None };
                let stale = || Offer { fresh: false, ..known.unwrap_or_default() };
                (place, offer.unwrap_or_else(stale))
            }
        });
        let offers: Offers = join_all(read).await.into_iter().collect();
        if offers != *known {
            self.offers.store(Arc::new(offers));
        }
    }
}

async fn read(server: &ApiServer, registered: &Registered) -> Option<Offer> {
    let endpoint = registered.remote.as_ref()?.endpoint.as_ref().ok()?;
    let (group, version) = (registered.group.as_str(), registered.version.as_str());
    let (resources, openapi) =
        tokio::join!(resources(server, endpoint, group, version), openapi(server, endpoint, group, version));
    Some(Offer { resources: resources?, fresh: true, openapi })
}

async fn ask(server: &ApiServer, endpoint: &Endpoint, path: &str, accept: &str) -> Option<(String, Value)> {
    let question = front_proxy::question(path, accept).ok()?;
    let answer = server.caller().exchange(endpoint, question, ANSWER_MAX).await;
    let answer = answer.inspect_err(|error| tracing::debug!(%error, "an aggregated server")).ok()?;
    let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.to_owned();
    let value = serde_json::from_slice(answer.body()).ok().filter(|_| answer.status().is_success())?;
    Some((content_type, value))
}

/// From the one document for all groups, or from the group version's own for servers that do not have that.
async fn resources(server: &ApiServer, endpoint: &Endpoint, group: &str, version: &str) -> Option<Vec<Value>> {
    if let Some((content_type, list)) = ask(server, endpoint, "/apis", AGGREGATED).await
        && content_type.contains("as=APIGroupDiscoveryList")
    {
        return Some(of_aggregated(&list, group, version));
    }
    let path = format!("/apis/{group}/{version}");
    let (_, list) = ask(server, endpoint, &path, "application/json").await?;
    Some(of_legacy(&list, group, version))
}

fn of_aggregated(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let group = list.list("items").iter().find(|one| one.part("metadata").text("name") == group);
    let version = group.and_then(|group| group.list("versions").iter().find(|one| one.text("version") == version));
    let mut resources = version.map(|version| version.list("resources").to_vec()).unwrap_or_default();
    for resource in &mut resources {
        // Old clients stumble over a kind that is not there.
        resource.fill("responseKind", json!({"group": "", "version": "", "kind": ""}));
    }
    resources
}

/// An `APIResourceList` in the words of `APIResourceDiscovery`.
fn of_legacy(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let kind = |one: &Value| {
        let own = |field: &str, default: &str| match one.text(field) {
            "" => default.to_owned(),
            text => text.to_owned(),
        };
        json!({"group": own("group", group), "version": own("version", version), "kind": one.text("kind")})
    };
    let mut resources: Vec<Value> = Vec::new();
    for one in list.list("resources") {
        let (plural, subresource) = one.text("name").split_once('/').unwrap_or((one.text("name"), ""));
        let scope = if one.flag("namespaced") { "Namespaced" } else { "Cluster" };
        let index = resources.iter().position(|known| known.text("resource") == plural);
        let index = index.unwrap_or_else(|| {
            resources.push(json!({"resource": plural, "scope": scope, "verbs": [], "singularResource": ""}));
            resources.len() - 1
        });
        let Some(entry) = resources.get_mut(index) else { continue };
        if subresource.is_empty() {
            entry.set("singularResource", one.text("singularName"));
            entry.set("responseKind", kind(one));
            entry.set("verbs", one.part("verbs").clone());
            for field in ["shortNames", "categories"] {
                if one.has(field) {
                    entry.set(field, one.part(field).clone());
                }
            }
        } else {
            let mut list = entry.list("subresources").to_vec();
            list.push(json!({"subresource": subresource, "responseKind": kind(one), "verbs": one.part("verbs")}));
            entry.set("subresources", list);
        }
    }
    for resource in &mut resources {
        resource.fill("responseKind", json!({"group": "", "version": "", "kind": ""}));
    }
    resources
}

async fn openapi(server: &ApiServer, endpoint: &Endpoint, group: &str, version: &str) -> Option<String> {
    let (_, index) = ask(server, endpoint, "/openapi/v3", "application/json").await?;
    let path = index.part("paths").part(&format!("apis/{group}/{version}")).text("serverRelativeURL").to_owned();
    // It becomes a path of this server's.
    path.starts_with(&format!("/openapi/v3/apis/{group}/{version}")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_discovery_is_put_into_the_new_words() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                "verbs": ["get", "list"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
            {"name": "fischers", "singularName": "fischer", "namespaced": false, "kind": "Fischer", "verbs": ["get"]},
        ]});
        let found = of_legacy(&list, "wardle.example.com", "v1alpha1");
        let kind = |kind: &str| json!({"group": "wardle.example.com", "version": "v1alpha1", "kind": kind});
        assert_eq!(
            found,
            [
                json!({"resource": "flunders", "scope": "Namespaced", "verbs": ["get", "list"], "singularResource": "flunder",
                "responseKind": kind("Flunder"), "shortNames": ["fl"],
                "subresources": [{"subresource": "status", "responseKind": kind("Flunder"), "verbs": ["get"]}]}),
                json!({"resource": "fischers", "scope": "Cluster", "verbs": ["get"], "singularResource": "fischer",
                "responseKind": kind("Fischer")}),
            ]
        );
    }

    #[test]
    fn a_group_version_is_taken_from_the_document_of_all() {
        let list = json!({"items": [{"metadata": {"name": "a"}, "versions": [
            {"version": "v1", "resources": [{"resource": "x"}]}, {"version": "v2", "resources": []},
        ]}]});
        let found = of_aggregated(&list, "a", "v1");
        assert_eq!(found[0]["responseKind"]["kind"], "");
        assert!(of_aggregated(&list, "a", "v2").is_empty() && of_aggregated(&list, "b", "v1").is_empty());
    }
}
