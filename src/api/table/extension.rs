//! How the API itself grows: custom resource definitions and aggregated servers.

use super::{Built, global};
use crate::defaults;

pub(super) fn add(rows: &mut Vec<Built>) {
    rows.extend([
        global("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
            .default(defaults::cluster::custom_resource_definition)
            .short(&["crd", "crds"])
            .category("api-extensions")
            .key("apiextensions.k8s.io/customresourcedefinitions")
            .status()
            .generation()
            .conditional(),
        global("apiregistration.k8s.io", "v1", "apiservices", "APIService")
            .default(defaults::cluster::api_service)
            .category("api-extensions")
            .key("apiregistration.k8s.io/apiservices")
            .status()
            .conditional(),
    ]);
}
