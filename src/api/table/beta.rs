//! Betas and alphas that are the stable kinds under another version. They are off until `--runtime-config` turns them
//! on; what is kept is the stable version.

use std::borrow::Cow;

use super::Built;

/// Group, version, resources; since when they are deprecated, and what is said besides.
type Beta = (&'static str, &'static str, &'static [&'static str], Option<(&'static str, &'static str)>);

const SAME_AS_V1: &[Beta] = &[
    (
        "admissionregistration.k8s.io",
        "v1alpha1",
        &["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"],
        Some(("1.35", ", unavailable in v1.38+")),
    ),
    (
        "admissionregistration.k8s.io",
        "v1beta1",
        &["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"],
        None,
    ),
    ("networking.k8s.io", "v1beta1", &["ipaddresses", "servicecidrs"], Some(("1.34", ", unavailable in v1.37+"))),
    (
        "storage.k8s.io",
        "v1beta1",
        &["volumeattributesclasses"],
        Some(("1.34", ", unavailable in v1.37+; use storage.k8s.io/v1 VolumeAttributesClass")),
    ),
];

pub(super) fn add(rows: &mut Vec<Built>) {
    for (group, version, plurals, deprecated) in SAME_AS_V1 {
        for plural in *plurals {
            let stable = rows.iter().find(|row| row.group == *group && row.version == "v1" && row.plural == *plural);
            let beta = stable.map(|stable| under(stable, version)).map(|beta| match deprecated {
                Some((since, more)) => beta.deprecated(since, more),
                None => beta,
            });
            rows.extend(beta);
        }
    }
}

fn under(stable: &Built, version: &'static str) -> Built {
    let mut row = stable.row.clone();
    row.resource.version = Cow::Borrowed(version);
    Built { version, row, functions: stable.functions, ..*stable }.off()
}
