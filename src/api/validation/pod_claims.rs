//! The device claims of a pod, and which of them its containers use.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Check;
use crate::{failure::FieldError, fields::Fields, format, path::Path};

/// Checks a pod's claims and says which names its containers may use.
pub(crate) fn of_pod<'a>(check: &mut Check<'_>, spec: &'a Value, path: &Path<'_>) -> BTreeSet<&'a str> {
    let list = path.field("resourceClaims");
    let mut names = BTreeSet::new();
    for (index, claim) in spec.list("resourceClaims").iter().enumerate() {
        let path = list.index(index);
        let name = claim.text("name");
        if check.text(claim, &path, "name") {
            if names.insert(name) {
                check.found(&path.field("name"), name, format::dns_label(name));
            } else {
                check.duplicate(&path.field("name"), &name.into());
            }
        }
        let sources: Vec<&str> =
            ["resourceClaimName", "resourceClaimTemplateName"].into_iter().filter(|name| claim.has(name)).collect();
        match sources.len() {
            0 => {
                let text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                check.invalid(&path, claim, text);
            }
            1 => {}
            _ => {
                let text = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                check.invalid(&path, claim, text);
            }
        }
        for source in sources {
            check.found(&path.field(source), claim.text(source), format::dns_subdomain(claim.text(source)));
        }
    }
    names
}

/// The claims that a container, or the pod as a whole, uses.
pub(crate) fn used(check: &mut Check<'_>, resources: &Value, known: &BTreeSet<&str>, path: &Path<'_>) {
    let list = path.field("claims");
    let mut used: BTreeSet<String> = BTreeSet::new();
    for (index, claim) in resources.list("claims").iter().enumerate() {
        let path = list.index(index);
        let (name, request) = (claim.text("name"), claim.text("request"));
        if name.is_empty() {
            check.required(&path, "");
            continue;
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
        if used.contains(name) {
            check.duplicate(&path, &name.into());
        } else {
            if !request.is_empty() {
                check.found(&path.field("request"), request, format::dns_label(request));
            }
            let overlaps =
                used.iter().filter(|one| one.split_once('/').is_some_and(|(claim, _)| claim == name)).count();
            if used.contains(&key) {
                check.duplicate(&path, &key.as_str().into());
            } else if request.is_empty() {
                (0..overlaps).for_each(|_| check.duplicate(&path, &name.into()));
            }
            used.insert(key);
        }
        if !known.contains(name) {
            let names: Vec<&str> = known.iter().copied().collect();
            let all = match names.as_slice() {
                [] => " which is empty".to_owned(),
                names => format!(": {}", names.join(", ")),
            };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{all}");
            check.errors.push(FieldError::not_found_because(&path, &name.into(), &detail));
        }
    }
}
