//! How the API itself grows: custom resource definitions and aggregated servers.

use super::{Built, global};
use crate::{defaults, meta::NameRule, print, strategy::kinds, validation};

pub(super) fn add(rows: &mut Vec<Built>) {
    rows.extend([
        global("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
            .prepare_create(kinds::definition_create)
            .prepare_update(kinds::definition_update)
            .validate(validation::definition::create)
            .validate_update(validation::definition::update)
            .warn(validation::definition::warnings)
            .default(defaults::cluster::custom_resource_definition)
            .short(&["crd", "crds"])
            .category("api-extensions")
            .key("apiextensions.k8s.io/customresourcedefinitions")
            .status()
            .generation()
            .conditional(),
        global("apiregistration.k8s.io", "v1", "apiservices", "APIService")
            .show(print::API_SERVICES, print::api_service)
            .names(NameRule::PathSegment)
            .validate(validation::api_service::create)
            .validate_update(validation::api_service::update)
            .default(defaults::cluster::api_service)
            .category("api-extensions")
            .key("apiregistration.k8s.io/apiservices")
            .status()
            .conditional(),
    ]);
}
