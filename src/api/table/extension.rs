//! How the API itself grows: custom resource definitions and aggregated servers.

use super::{Built, global};
use crate::strategy::Functions;

pub(super) fn add(rows: &mut Vec<Built>) {
    rows.extend([
        global("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
            .short(&["crd", "crds"])
            .category("api-extensions")
            .key("apiextensions.k8s.io/customresourcedefinitions")
            .status()
            .generation()
            .conditional()
            .with(Functions::WITH_STATUS),
        global("apiregistration.k8s.io", "v1", "apiservices", "APIService")
            .category("api-extensions")
            .key("apiregistration.k8s.io/apiservices")
            .status()
            .conditional()
            .with(Functions::WITH_STATUS),
    ]);
}
