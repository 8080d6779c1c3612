//! Projected volumes: Secrets, ConfigMaps, the downward API, tokens, trust bundles and certificates in one directory.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Check, downward, labels, pod_certificates, trust, volumes};
use crate::{fields::Fields, path::Path};

const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
const CERTIFICATE_SECONDS_MIN: i64 = 60 * 60;
const CERTIFICATE_SECONDS_MAX: i64 = 91 * 24 * 60 * 60;
/// Of certificates whose signer is Kubernetes' own.
const KUBERNETES_CERTIFICATE_SECONDS_MAX: i64 = 24 * 60 * 60;
const TAKEN: &str = "conflicting duplicate paths";

pub(crate) fn projected(check: &mut Check<'_>, projected: &Value, path: &Path<'_>) {
    volumes::mode(check, projected, path, "defaultMode");
    let mut files = BTreeSet::new();
    let list = path.field("sources");
    for (index, source) in projected.list("sources").iter().enumerate() {
        let here = list.index(index);
        let mut count = 0;
        for kind in
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"]
        {
            let Some(part) = source.at(kind) else { continue };
            count += 1;
            let here = here.field(kind);
            match kind {
                "secret" | "configMap" => {
                    check.text(part, &here, "name");
                    volumes::items(check, part, &here);
                    for item in part.list("items") {
                        let owner = part.text("name");
                        take(check, &mut files, item.text("path"), owner, path);
                    }
                }
                "downwardAPI" => {
                    for file in part.list("items") {
                        downward::file(check, file, &here);
                        take(check, &mut files, file.text("path"), file.text("path"), path);
                    }
                }
                "serviceAccountToken" => token(check, part, &here, path),
                "clusterTrustBundle" => {
                    trust_bundle(check, part, &here);
                    // Here even two files without a name are in each other's way.
                    let file = part.text("path");
                    if !files.insert(file) {
                        check.invalid(path, &file.into(), TAKEN);
                    }
                }
                _ => certificate(check, part, &mut files, &here, path),
            }
        }
        if count > 1 {
            check.forbidden(&here, "may not specify more than 1 volume type per source");
        }
    }
}

/// A file of the volume belongs to one source; who comes second is told so, by the name `said`.
fn take<'a>(check: &mut Check<'_>, files: &mut BTreeSet<&'a str>, file: &'a str, said: &str, path: &Path<'_>) {
    if !file.is_empty() && !files.insert(file) {
        check.invalid(path, &said.into(), TAKEN);
    }
}

fn token(check: &mut Check<'_>, part: &Value, path: &Path<'_>, volume: &Path<'_>) {
    let seconds = part.int("expirationSeconds").unwrap_or_default();
    volumes::token_lifetime(check, seconds, &path.field("expirationSeconds"));
    if check.text(part, volume, "path") {
        volumes::not_reserved(check, part.text("path"), &volume.field("path"));
    }
}

fn trust_bundle(check: &mut Check<'_>, part: &Value, path: &Path<'_>) {
    match (part.has("name"), part.has("signerName")) {
        (true, true) => check.invalid(path, part, "only one of name and signerName may be used"),
        (true, false) => {
            let (here, name) = (path.field("name"), part.text("name"));
            if name.is_empty() {
                check.required(&here, "must be a valid object name");
            }
            for finding in trust::any_name_findings(name) {
                check.invalid(&here, &name.into(), &format!("not a valid clustertrustbundlename: {finding}"));
            }
            if let Some(selector) = part.at("labelSelector") {
                let text = "labelSelector must be unset if name is specified";
                check.invalid(&path.field("labelSelector"), selector, text);
            }
        }
        (false, true) => {
            let here = path.field("signerName");
            if part.text("signerName").is_empty() {
                check.required(&here, "must be a valid signer name");
            }
            trust::signer_name(check, part.text("signerName"), &here);
            if let Some(selector) = part.at("labelSelector") {
                labels::selector(check, selector, &path.field("labelSelector"));
            }
        }
        (false, false) => check.required(path, "either name or signerName must be specified"),
    }
    check.text(part, path, "path");
    volumes::not_reserved(check, part.text("path"), &path.field("path"));
}

fn certificate<'a>(
    check: &mut Check<'_>,
    part: &'a Value,
    files: &mut BTreeSet<&'a str>,
    path: &Path<'_>,
    volume: &Path<'_>,
) {
    let signer = part.text("signerName");
    trust::signer_name(check, signer, &path.field("signerName"));
    pod_certificates::user_annotations(check, part.map("userAnnotations"), &path.field("userAnnotations"));
    check.choice_or_not_supported(part, path, "keyType", KEY_TYPES);
    if let Some(seconds) = part.int("maxExpirationSeconds") {
        let here = path.field("maxExpirationSeconds");
        if seconds < CERTIFICATE_SECONDS_MIN {
            let text = format!("if provided, maxExpirationSeconds must be >= {CERTIFICATE_SECONDS_MIN}");
            check.invalid(&here, &seconds.into(), &text);
        }
        let domain = signer.split('/').next().unwrap_or_default();
        let max = if domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") {
            KUBERNETES_CERTIFICATE_SECONDS_MAX
        } else {
            CERTIFICATE_SECONDS_MAX
        };
        if seconds > max {
            let text = format!("if provided, maxExpirationSeconds must be <= {max}");
            check.invalid(&here, &seconds.into(), &text);
        }
    }
    let mut paths = 0;
    for name in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let file = part.text(name);
        if !file.is_empty() {
            paths += 1;
            volumes::not_reserved(check, file, &path.field(name));
            take(check, files, file, file, volume);
        }
    }
    if paths == 0 {
        check.required(path, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_file_of_a_projected_volume_has_one_source() {
        let cases: &[(Value, &[&str])] = &[
            (json!([{}]), &[]),
            (
                json!([{"secret": {"name": "s", "items": [{"key": "a", "path": "f"}]}},
                    {"configMap": {"name": "m", "items": [{"key": "a", "path": "f"}]}}]),
                &["p: Invalid value: \"m\": conflicting duplicate paths"],
            ),
            (
                json!([{"serviceAccountToken": {"path": "..", "expirationSeconds": 600}, "secret": {"name": "s"}}]),
                &[
                    "p.path: Invalid value: \"..\": must not contain '..'",
                    "p.path: Invalid value: \"..\": must not start with '..'",
                    "p.sources[0]: Forbidden: may not specify more than 1 volume type per source",
                ],
            ),
            (
                json!([{"clusterTrustBundle": {"name": "a:b:c", "labelSelector": {}, "path": "t"}}]),
                &[
                    "p.sources[0].clusterTrustBundle.labelSelector: Invalid value: {}: labelSelector must be unset if name is specified",
                ],
            ),
            (
                json!([{"clusterTrustBundle": {}}]),
                &[
                    "p.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified",
                    "p.sources[0].clusterTrustBundle.path: Required value",
                ],
            ),
            (
                json!([{"podCertificate": {"signerName": "kubernetes.io/a", "keyType": "RSA", "maxExpirationSeconds": 90000}}]),
                &[
                    "p.sources[0].podCertificate.keyType: Unsupported value: \"RSA\": supported values: \"RSA3072\", \"RSA4096\", \
                     \"ECDSAP256\", \"ECDSAP384\", \"ECDSAP521\", \"ED25519\"",
                    "p.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 90000: if provided, maxExpirationSeconds must be <= 86400",
                    "p.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and \
                     certificateChainPath",
                ],
            ),
        ];
        for (sources, expected) in cases {
            let mut errors = Vec::new();
            projected(&mut Check { errors: &mut errors }, &json!({"sources": sources}), &Path::Root.field("p"));
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(found, *expected);
        }
    }
}
