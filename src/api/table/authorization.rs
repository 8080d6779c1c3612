//! Who may do what: RBAC, access reviews, certificate signing requests.

use super::{Built, CREATE, global, namespaced};
use crate::{defaults, meta::NameRule, print, selector::SelectableField as Field, strategy::kinds, validation};

pub(super) fn add(rows: &mut Vec<Built>) {
    let review = |plural, kind| global("authorization.k8s.io", "v1", plural, kind).computed(CREATE);
    let rbac = "rbac.authorization.k8s.io";
    let certificates = "certificates.k8s.io";
    rows.extend([
        namespaced("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview")
            .computed(CREATE),
        review("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
        review("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
        review("subjectaccessreviews", "SubjectAccessReview"),
        global(rbac, "v1", "clusterrolebindings", "ClusterRoleBinding")
            .show(print::BINDINGS, print::binding)
            .validate(validation::authorization::cluster_role_binding)
            .validate_update(validation::authorization::cluster_role_binding_update)
            .default(defaults::cluster::binding)
            .names(NameRule::PathSegment)
            .create_on_update(),
        global(rbac, "v1", "clusterroles", "ClusterRole")
            .validate(validation::authorization::cluster_role)
            .default(defaults::cluster::role)
            .names(NameRule::PathSegment)
            .create_on_update(),
        namespaced(rbac, "v1", "rolebindings", "RoleBinding")
            .show(print::BINDINGS, print::binding)
            .validate(validation::authorization::role_binding)
            .validate_update(validation::authorization::role_binding_update)
            .default(defaults::cluster::binding)
            .names(NameRule::PathSegment)
            .create_on_update(),
        namespaced(rbac, "v1", "roles", "Role")
            .validate(validation::authorization::role)
            .default(defaults::cluster::role)
            .names(NameRule::PathSegment)
            .create_on_update(),
        global(certificates, "v1", "certificatesigningrequests", "CertificateSigningRequest")
            .show(print::SIGNING_REQUESTS, print::signing_request)
            .prepare_update(kinds::signing_request_update)
            .validate(validation::authorization::signing_request)
            .validate_update(validation::authorization::signing_request_update)
            .short(&["csr"])
            .names(NameRule::PathSegment)
            .view("approval")
            .status()
            .select(&[Field::text("spec.signerName")]),
    ]);
}
