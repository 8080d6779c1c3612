//! Other versions of kinds that are kept in one: betas and alphas. They are off until `--runtime-config` turns them on.

use std::borrow::Cow;

use super::Built;
use crate::{
    defaults, strategy::devices, validation::claims, validation::devices::slice, validation::devices::slice_update,
};

/// A version of kinds that are stored in another.
struct Version {
    group: &'static str,
    version: &'static str,
    stored: &'static str,
    plurals: &'static [&'static str],
    /// Since when it is deprecated, and what is said besides.
    deprecated: Option<(&'static str, &'static str)>,
}

const fn version(group: &'static str, version: &'static str, plurals: &'static [&'static str]) -> Version {
    Version { group, version, stored: "v1", plurals, deprecated: None }
}

impl Version {
    const fn stored(mut self, stored: &'static str) -> Version {
        self.stored = stored;
        self
    }

    const fn deprecated(mut self, since: &'static str, more: &'static str) -> Version {
        self.deprecated = Some((since, more));
        self
    }
}

const POLICIES: &[&str] = &["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"];
const DEVICES: &[&str] = &["deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices"];

const VERSIONS: &[Version] = &[
    version("admissionregistration.k8s.io", "v1alpha1", POLICIES).deprecated("1.35", ", unavailable in v1.38+"),
    version("admissionregistration.k8s.io", "v1beta1", POLICIES),
    version("certificates.k8s.io", "v1alpha1", &["clustertrustbundles"])
        .stored("v1beta1")
        .deprecated("1.34", ", unavailable in v1.37+"),
    version("coordination.k8s.io", "v1alpha2", &["leasecandidates"])
        .stored("v1beta1")
        .deprecated("1.35", ", unavailable in v1.38+"),
    version("networking.k8s.io", "v1beta1", &["ipaddresses", "servicecidrs"])
        .deprecated("1.34", ", unavailable in v1.37+"),
    version("resource.k8s.io", "v1beta1", DEVICES).deprecated("1.35", ", unavailable in v1.38+"),
    version("resource.k8s.io", "v1beta2", DEVICES).deprecated("1.36", ", unavailable in v1.39+"),
    version("resource.k8s.io", "v1beta2", &["devicetaintrules"]).stored("v1alpha3"),
    version("storage.k8s.io", "v1beta1", &["volumeattributesclasses"])
        .deprecated("1.34", ", unavailable in v1.37+; use storage.k8s.io/v1 VolumeAttributesClass"),
];

pub(super) fn add(rows: &mut Vec<Built>) {
    for served in VERSIONS {
        for plural in served.plurals {
            let is_stored =
                |row: &&Built| row.group == served.group && row.version == served.stored && row.plural == *plural;
            let row = rows.iter().find(is_stored).map(|stored| under(stored, served));
            rows.extend(row.map(converted));
        }
    }
}

fn under(stored: &Built, served: &Version) -> Built {
    let mut row = stored.row.clone();
    row.resource.version = Cow::Borrowed(served.version);
    row.deprecation = None;
    let built = Built { version: served.version, row, functions: stored.functions, ..*stored }.off();
    match served.deprecated {
        Some((since, more)) => built.deprecated(since, more),
        None => built,
    }
}

/// The first beta of what asks for devices looks different. What is wrong with it is said of the stable form.
fn converted(row: Built) -> Built {
    match (row.group, row.version, row.plural) {
        ("resource.k8s.io", "v1beta1", "resourceclaims") => row
            .convert(devices::claim_to_stable, devices::claim_from_stable)
            .default(defaults::previews::claim)
            .validate(|claim, errors| claims::claim(&stable(claim, devices::claim_to_stable), errors))
            .validate_update(|new, old, subresource, errors| {
                let [new, old] = [new, old].map(|one| stable(one, devices::claim_to_stable));
                claims::claim_update(&new, &old, subresource, errors);
            }),
        ("resource.k8s.io", "v1beta1", "resourceclaimtemplates") => row
            .convert(devices::template_to_stable, devices::template_from_stable)
            .default(defaults::previews::claim_template)
            .validate(|template, errors| claims::claim_template(&stable(template, devices::template_to_stable), errors))
            .validate_update(|new, old, subresource, errors| {
                let [new, old] = [new, old].map(|one| stable(one, devices::template_to_stable));
                claims::claim_template_update(&new, &old, subresource, errors);
            }),
        ("resource.k8s.io", "v1beta1", "resourceslices") => row
            .convert(devices::slice_to_stable, devices::slice_from_stable)
            .validate(|object, errors| slice(&stable(object, devices::slice_to_stable), errors))
            .validate_update(|new, old, subresource, errors| {
                let [new, old] = [new, old].map(|one| stable(one, devices::slice_to_stable));
                slice_update(&new, &old, subresource, errors);
            }),
        _ => row,
    }
}

fn stable(object: &serde_json::Value, to_stable: fn(&mut serde_json::Value)) -> serde_json::Value {
    let mut object = object.clone();
    to_stable(&mut object);
    object
}
