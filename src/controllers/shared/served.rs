//! Which resources there are: built-in ones, and custom ones as their definitions come and go.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Encoded, Resource};
use client::{Client, Follow, Scope, Step};
use serde::Deserialize;
use task::Shutdown;
use tokio::sync::watch;

use crate::Served;

/// Everything that is served, as it is now. `None` until the definitions were seen once.
pub type Resources = watch::Receiver<Option<Arc<Vec<Served>>>>;

/// Follows the definitions until `shutdown`.
pub fn follow(client: &Client, built_in: Vec<Served>, shutdown: &Shutdown) -> Resources {
    let definitions = Resource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let mut follow = Follow::new(client.backend().clone(), definitions, Scope::all());
    let (sender, receiver) = watch::channel(None);
    let shutdown = shutdown.clone();
    task::spawn("definitions", async move {
        let mut custom: BTreeMap<String, Served> = BTreeMap::new();
        loop {
            let step = tokio::select! {
                () = shutdown.cancelled() => return,
                step = follow.next() => step,
            };
            match step {
                Step::All(objects) => custom = objects.iter().filter_map(Definition::read).collect(),
                Step::Put(object) => match Definition::read(&object) {
                    Some((name, served)) => drop(custom.insert(name, served)),
                    None => drop(name_of(&object).and_then(|name| custom.remove(&name))),
                },
                Step::Gone(object) => drop(name_of(&object).and_then(|name| custom.remove(&name))),
            }
            let all: Vec<Served> = built_in.iter().chain(custom.values()).cloned().collect();
            sender.send_if_modified(|known| {
                let changed = known.as_deref() != Some(&all);
                if changed {
                    *known = Some(Arc::new(all));
                }
                changed
            });
        }
    });
    receiver
}

fn name_of(object: &Encoded) -> Option<String> {
    object.metadata::<Metadata>().ok().map(|metadata| metadata.name)
}

/// The part of a definition that says what it serves.
#[derive(Deserialize)]
struct Definition {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
struct Spec {
    group: String,
    names: Names,
    scope: String,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Names {
    plural: String,
    kind: String,
}

#[derive(Deserialize)]
struct Version {
    name: String,
    served: bool,
    storage: bool,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Definition {
    /// The name of a definition and what it serves; `None` while it serves nothing.
    fn read(object: &Encoded) -> Option<(String, Served)> {
        let definition: Definition = object.decode().ok()?;
        let name = definition.metadata.name.clone();
        Some((name, definition.served()?))
    }

    fn served(self) -> Option<Served> {
        let established = self.status.conditions.iter().any(|one| one.kind == "Established" && one.status == "True");
        // In the version that is stored nothing has to be converted.
        let served = || self.spec.versions.iter().filter(|version| version.served);
        let version = served().find(|version| version.storage).or_else(|| served().next())?;
        established.then(|| Served {
            resource: Resource {
                group: Cow::Owned(self.spec.group.clone()),
                version: Cow::Owned(version.name.clone()),
                plural: Cow::Owned(self.spec.names.plural.clone()),
            },
            kind: Cow::Owned(self.spec.names.kind.clone()),
            namespaced: self.spec.scope == "Namespaced",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(established: &str, versions: serde_json::Value) -> Option<(String, Served)> {
        let definition = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"}, "versions": versions},
            "status": {"conditions": [{"type": "Established", "status": established}]},
        });
        Definition::read(&Encoded::whole(definition.to_string()))
    }

    #[test]
    fn a_definition_serves_the_stored_version_if_it_can() {
        let version =
            |name: &str, served: bool, storage: bool| json!({"name": name, "served": served, "storage": storage});
        let both = json!([version("v2", true, false), version("v1", true, true)]);
        let (name, served) = read("True", both.clone()).unwrap();
        assert_eq!((name.as_str(), served.resource.version.as_ref()), ("widgets.example.com", "v1"));
        assert!(served.namespaced);
        let (_, served) = read("True", json!([version("v2", true, false), version("v1", false, true)])).unwrap();
        assert_eq!(served.resource.version, "v2");
        assert!(read("False", both).is_none());
        assert!(read("True", json!([version("v1", false, true)])).is_none());
    }
}
