//! The table and k8s-openapi's types say the same, and descriptions of the one fit the definitions of the other.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use schema::Types;
use schema::openapi::{Endpoint, Verb, v3};
use serde_json::Value;

/// The definitions of some types, by name.
fn definitions() -> serde_json::Map<String, Value> {
    let mut generator = schemars::SchemaGenerator::default();
    generator.subschema_for::<Deployment>();
    generator.subschema_for::<HorizontalPodAutoscaler>();
    generator.subschema_for::<Ingress>();
    generator.subschema_for::<NetworkPolicy>();
    generator.subschema_for::<Node>();
    generator.subschema_for::<PersistentVolume>();
    generator.subschema_for::<Pod>();
    generator.subschema_for::<Service>();
    generator.take_definitions(true)
}

#[test]
fn both_have_the_same_fields() {
    let definitions = definitions();
    assert!(definitions.len() > 150, "{}", definitions.len());
    for (name, definition) in &definitions {
        let ty = Types::builtin().named(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        let Some(s) = ty.as_struct() else { continue };
        let theirs: Vec<&str> = definition["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut ours: Vec<&str> = s.fields().map(|f| f.name()).collect();
        ours.sort_unstable();
        let mut sorted = theirs.clone();
        sorted.sort_unstable();
        assert_eq!(ours, sorted, "{name}");
    }
}

#[test]
fn documents_take_their_descriptions() {
    let definitions = definitions();
    let describe = |definition: &str, field: Option<&str>| {
        let of = definitions.get(definition)?;
        let of = field.map_or(Some(of), |field| of.get("properties")?.get(field))?;
        of.get("description")?.as_str().map(str::to_owned)
    };
    let endpoint = Endpoint {
        group: "",
        version: "v1",
        resource: "pods",
        kind: "Pod",
        namespaced: true,
        subresource: None,
        body: None,
        verbs: &[Verb::Get, Verb::Create],
    };
    let document = v3(Types::builtin(), "", "v1", &[endpoint], &describe);
    let container = &document["components"]["schemas"]["io.k8s.api.core.v1.Container"];
    assert!(container["description"].as_str().unwrap().contains("single application container"));
    assert!(container["properties"]["image"]["description"].as_str().unwrap().contains("image name"));
}
