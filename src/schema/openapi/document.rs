//! Whole documents.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Dialect;
use super::paths::{Endpoint, discovery, endpoint};
use super::schemas::{CustomKind, Describe, Schemas, object, put};
use crate::types::Types;

/// The OpenAPI v3 document of one group-version. Endpoints of other group-versions are left out.
pub fn v3(
    types: &Types,
    group: &str,
    version: &str,
    endpoints: &[Endpoint<'_>],
    custom: &[CustomKind],
    describe: Describe<'_>,
) -> Value {
    let group_versions = [(group, version)];
    let mut schemas = Schemas::new(Dialect::V3, types, describe, &group_versions, custom);
    let mut paths = Map::from_iter([discovery(group, version, &mut schemas)]);
    for e in endpoints.iter().filter(|e| (e.group, e.version) == (group, version)) {
        endpoint(e, &mut schemas, &mut paths);
        if e.verbs.contains(&super::Verb::Watch) && !e.custom {
            schemas.reference("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent");
        }
    }
    let scheme = json!({
        "BearerToken": {"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"},
    });
    let components = object([("schemas", Value::Object(schemas.finish())), ("securitySchemes", scheme)]);
    Value::Object(object([
        ("openapi", json!("3.0.0")),
        ("info", json!({"title": "Kubernetes", "version": "unversioned"})),
        ("paths", Value::Object(paths)),
        ("components", Value::Object(components)),
    ]))
}

/// The OpenAPI v2 document of everything that is served. `server_version` is that of `/version`
/// (`v1.36.2`).
pub fn v2(
    types: &Types,
    endpoints: &[Endpoint<'_>],
    custom: &[CustomKind],
    server_version: &str,
    describe: Describe<'_>,
) -> Value {
    let group_versions: BTreeSet<(&str, &str)> = endpoints.iter().map(|e| (e.group, e.version)).collect();
    let group_versions: Vec<(&str, &str)> = group_versions.into_iter().collect();
    let mut schemas = Schemas::new(Dialect::V2, types, describe, &group_versions, custom);
    let mut paths = Map::new();
    for (group, version) in &group_versions {
        paths.extend([discovery(group, version, &mut schemas)]);
    }
    for e in endpoints {
        endpoint(e, &mut schemas, &mut paths);
    }
    schemas.reference("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent");
    let mut document = object([
        ("swagger", json!("2.0")),
        ("info", json!({"title": "Kubernetes", "version": server_version})),
        ("paths", Value::Object(paths)),
        ("definitions", Value::Object(schemas.finish())),
        ("security", json!([{"BearerToken": []}])),
    ]);
    let scheme = json!({
        "BearerToken": {"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"},
    });
    put(&mut document, "securityDefinitions", scheme);
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi::Verb;

    const ALL: &[Verb] = &[
        Verb::Get,
        Verb::List,
        Verb::Watch,
        Verb::Create,
        Verb::Update,
        Verb::Patch,
        Verb::Delete,
        Verb::DeleteCollection,
    ];

    fn deployments() -> [Endpoint<'static>; 2] {
        let main = Endpoint {
            group: "apps",
            version: "v1",
            resource: "deployments",
            kind: "Deployment",
            list_kind: None,
            custom: false,
            namespaced: true,
            subresource: None,
            body: None,
            verbs: ALL,
        };
        let scale = Endpoint {
            subresource: Some("scale"),
            body: Some(("autoscaling", "v1", "Scale")),
            verbs: &[Verb::Get, Verb::Update, Verb::Patch],
            ..main
        };
        [main, scale]
    }

    #[test]
    fn version_3() {
        let describe = |definition: &str, field: Option<&str>| {
            (definition.ends_with(".DeploymentSpec") && field == Some("replicas")).then(|| String::from("how many"))
        };
        let document = v3(Types::builtin(), "apps", "v1", &deployments(), &[], &describe);
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
        assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
        let schemas = &document["components"]["schemas"];
        let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
        assert_eq!(
            spec["properties"]["replicas"],
            json!({"type": "integer", "format": "int32", "description": "how many"})
        );
        assert_eq!(spec["required"], json!(["selector", "template"]));
        assert!(schemas.get("io.k8s.api.autoscaling.v1.Scale").is_some());
        assert!(schemas.get("io.k8s.api.core.v1.Container").is_some());
        // Every reference leads somewhere.
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn version_2() {
        let document = v2(Types::builtin(), &deployments(), &[], "v1.36.2", &|_, _| None);
        let get = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["get"];
        assert_eq!(get["responses"]["200"]["schema"]["$ref"], "#/definitions/io.k8s.api.apps.v1.DeploymentList");
        let post = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["post"];
        assert_eq!(post["parameters"][0]["in"], "body");
        assert_eq!(
            document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"],
            json!({"type": "string", "format": "int-or-string"})
        );
        assert!(!document.to_string().contains("#/components"));
    }
}
