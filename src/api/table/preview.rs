//! Kinds that have no stable version yet. They are off until `--runtime-config` turns them on.

use super::{Built, global, namespaced};
use crate::{
    defaults, meta::NameRule, print, selector::SelectableField as Field, strategy::kinds, strategy::previews,
    validation,
};

/// Where upstream says no more than when it is gone.
const NO_SUCCESSOR_1_39: (&str, &str) = ("1.36", ", unavailable in v1.39+");

pub(super) fn add(rows: &mut Vec<Built>) {
    let certificates = "certificates.k8s.io";
    let scheduling = "scheduling.k8s.io";
    let resource = "resource.k8s.io";
    let (since, more) = NO_SUCCESSOR_1_39;
    let preview = [
        namespaced("coordination.k8s.io", "v1beta1", "leasecandidates", "LeaseCandidate")
            .show(print::LEASE_CANDIDATES, print::lease_candidate)
            .validate(validation::lease_candidates::candidate)
            .validate_update(validation::lease_candidates::candidate_update)
            .deprecated(since, more)
            .create_on_update()
            .conditional()
            .select(&[Field::text("spec.leaseName")]),
        global(certificates, "v1beta1", "clustertrustbundles", "ClusterTrustBundle")
            .show(print::TRUST_BUNDLES, print::trust_bundle)
            .validate(validation::trust::bundle)
            .validate_update(validation::trust::bundle_update)
            .names(NameRule::PathSegment)
            .conditional()
            .select(&[Field::text("spec.signerName")]),
        namespaced(certificates, "v1beta1", "podcertificaterequests", "PodCertificateRequest")
            .show(print::POD_CERTIFICATES, print::pod_certificate)
            .default(defaults::previews::pod_certificate_request)
            .prepare_update(kinds::strict_status_update)
            .validate(validation::pod_certificates::request)
            .validate_update(validation::pod_certificates::request_update)
            .conditional()
            .status()
            .select(&[Field::text("spec.signerName"), Field::text("spec.podName"), Field::text("spec.nodeName")]),
        namespaced(scheduling, "v1alpha2", "podgroups", "PodGroup")
            .show(print::POD_GROUPS, print::pod_group)
            .default(defaults::previews::pod_group)
            .prepare_create(previews::pod_group_create)
            .prepare_update(previews::pod_group_update)
            .validate(validation::pod_groups::pod_group)
            .validate_update(validation::pod_groups::pod_group_update)
            .status(),
        namespaced(scheduling, "v1alpha2", "workloads", "Workload")
            .show(print::NAME_AGE, print::name_age)
            .prepare_create(previews::workload)
            .prepare_update(previews::workload_update)
            .validate(validation::pod_groups::workload)
            .validate_update(validation::pod_groups::workload_update),
        global("storagemigration.k8s.io", "v1beta1", "storageversionmigrations", "StorageVersionMigration")
            .show(print::MIGRATIONS, print::migration)
            .prepare_update(kinds::strict_status_update)
            .validate(validation::storage_versions::migration)
            .validate_update(validation::storage_versions::migration_update)
            .conditional()
            .status(),
        global("internal.apiserver.k8s.io", "v1alpha1", "storageversions", "StorageVersion")
            .show(print::STORAGE_VERSIONS, print::storage_version)
            .prepare_update(kinds::strict_status_update)
            .validate(validation::storage_versions::storage_version)
            .validate_update(validation::storage_versions::storage_version_update)
            .names(NameRule::PathSegment)
            .conditional()
            .status(),
        global(resource, "v1alpha3", "devicetaintrules", "DeviceTaintRule")
            .show(print::TAINT_RULES, print::taint_rule)
            .prepare_update(kinds::strict_status_update)
            .validate(validation::device_rules::taint_rule)
            .validate_update(validation::device_rules::taint_rule_update)
            .deprecated(since, more)
            .generation()
            .status(),
        global(resource, "v1alpha3", "resourcepoolstatusrequests", "ResourcePoolStatusRequest")
            .show(print::POOL_REQUESTS, print::pool_request)
            .default(defaults::previews::pool_request)
            .prepare_create(previews::unanswered)
            .prepare_update(kinds::strict_status_update)
            .validate(validation::device_rules::pool_request)
            .validate_update(validation::device_rules::pool_request_update)
            .conditional()
            .status(),
    ];
    rows.extend(preview.map(Built::off));
}
