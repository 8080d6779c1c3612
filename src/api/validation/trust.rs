//! Whom programs trust (`certificates.k8s.io` ClusterTrustBundle), and the names of signers.

use std::collections::BTreeMap;

use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Check;
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const BUNDLE_BYTES_MAX: usize = 1024 * 1024;
const DOMAIN_BYTES_MAX: usize = 253;
/// A domain, a slash, and room for a label, a dot and a name.
const SIGNER_BYTES_MAX: usize = DOMAIN_BYTES_MAX + 1 + 253 + 63 + 1;
/// Certificates are not told in answers.
const OMITTED: &str = "<value omitted>";
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";

pub fn bundle(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    named(check, object);
    let root = Path::Root;
    let path = root.field("spec");
    anchors(check, object.part("spec").text("trustBundle"), &path.field("trustBundle"));
}

pub fn bundle_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    named(check, object);
    let root = Path::Root;
    let path = root.field("spec");
    let (spec, before) = (object.part("spec"), old.part("spec"));
    if spec.text("trustBundle") != before.text("trustBundle") {
        anchors(check, spec.text("trustBundle"), &path.field("trustBundle"));
    }
    check.unchanged(spec, before, &path, "signerName");
}

/// A signer's bundles bear its name.
fn named(check: &mut Check<'_>, object: &Value) {
    let root = Path::Root;
    let path = root.field("metadata");
    let (name, signer) = (object.part("metadata").text("name"), object.part("spec").text("signerName"));
    if !name.is_empty() {
        check.found(&path.field("name"), name, name_findings(name, signer));
    }
    if !signer.is_empty() {
        let spec = root.field("spec");
        signer_name(check, signer, &spec.field("signerName"));
    }
}

fn name_findings(name: &str, signer: &str) -> Vec<String> {
    if signer.is_empty() {
        return match name.contains(':') {
            true => vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()],
            false => format::dns_subdomain(name),
        };
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => format::dns_subdomain(rest),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
    }
}

/// What is wrong with the name of a bundle whose signer is known by it alone: all before the last colon.
pub(crate) fn any_name_findings(name: &str) -> Vec<String> {
    let signer = name.rsplit_once(':').map(|(signer, _)| signer.replace(':', "/"));
    name_findings(name, &signer.unwrap_or_default())
}

/// `example.com/path`.
pub(crate) fn signer_name(check: &mut Check<'_>, signer: &str, path: &Path<'_>) {
    if signer.is_empty() {
        return check.required(path, "");
    }
    let [domain, rest] = signer.split('/').collect::<Vec<_>>()[..] else {
        let text = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return check.invalid(path, &signer.into(), text);
    };
    if domain.len() > DOMAIN_BYTES_MAX {
        check.errors.push(FieldError::too_long(path, DOMAIN_BYTES_MAX));
    }
    first_bad(check, domain, format::dns_label, path);
    if !domain.contains('.') {
        let text = "should be a domain with at least two segments separated by dots";
        check.invalid(path, &domain.into(), text);
    }
    first_bad(check, rest, format::dns_subdomain, path);
    if signer.len() > SIGNER_BYTES_MAX {
        check.errors.push(FieldError::too_long(path, SIGNER_BYTES_MAX));
    }
}

/// What is wrong with the first part of a name that something is wrong with.
fn first_bad(check: &mut Check<'_>, whole: &str, findings: fn(&str) -> Vec<String>, path: &Path<'_>) {
    let bad = whole.split('.').map(|label| (label, findings(label))).find(|(_, findings)| !findings.is_empty());
    let (label, findings) = bad.unwrap_or_default();
    let findings = findings.into_iter().map(|finding| format!("validating label {label:?}: {finding}"));
    check.found(path, whole, findings.collect());
}

/// Certificates of authorities, each once.
fn anchors(check: &mut Check<'_>, text: &str, path: &Path<'_>) {
    if text.len() > BUNDLE_BYTES_MAX {
        return check.errors.push(FieldError::too_long(path, BUNDLE_BYTES_MAX));
    }
    let mut seen: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    let mut findings = Vec::new();
    for (index, block) in blocks(text).enumerate() {
        match anchor(&block) {
            Ok(()) => seen.entry(block.contents).or_default().push(index),
            Err(why) => findings.push(format!("entry {index} {why}")),
        }
    }
    if findings.is_empty() && seen.is_empty() {
        findings.push("at least one trust anchor must be provided".to_owned());
    } else if findings.is_empty() {
        let twice = seen.into_values().filter(|indices| indices.len() > 1);
        findings.extend(twice.map(|indices| {
            let indices: Vec<String> = indices.iter().map(usize::to_string).collect();
            format!("duplicate trust anchor (indices [{}])", indices.join(" "))
        }));
    }
    check.found(path, OMITTED, findings);
}

fn anchor(block: &Pem) -> Result<(), String> {
    if block.label != CERTIFICATE {
        return Err(format!("has bad block type: {}", block.label));
    }
    let parsed = X509Certificate::from_der(&block.contents).ok().filter(|(rest, _)| rest.is_empty());
    let (_, certificate) = parsed.ok_or("does not parse as X.509")?;
    if certificate.is_ca() { Ok(()) } else { Err("does not have the CA bit set".to_owned()) }
}

/// The PEM blocks of a text; what stands between them, or is none, is passed over.
pub(crate) fn blocks(text: &str) -> impl Iterator<Item = Pem> {
    Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn bundles_bear_their_signers_names() {
        assert!(name_findings("example.com:signer:a", "example.com/signer").is_empty());
        assert_eq!(name_findings("a", "example.com/signer").len(), 1);
        assert_eq!(name_findings("a:b", "").len(), 1);
        assert!(any_name_findings("example.com:signer:a").is_empty());
        assert_eq!(any_name_findings("example.com:signer:A").len(), 1);
        let mut errors = Vec::new();
        let path = Path::Root.field("signerName");
        for signer in ["example.com/a", "nodots/a", "a.example/b/c", "A.example/b", "a.example/B"] {
            signer_name(&mut Check { errors: &mut errors }, signer, &path);
        }
        assert_eq!(errors.len(), 4, "{errors:#?}");
    }

    #[test]
    fn what_is_no_certificate_is_no_anchor() {
        let found = |text: &str| {
            let mut errors = Vec::new();
            bundle(&json!({"metadata": {"name": "a"}, "spec": {"trustBundle": text}}), &mut errors);
            fields(&errors)
        };
        let omitted = "spec.trustBundle: Invalid value: \"<value omitted>\":";
        assert_eq!(found(""), [format!("{omitted} at least one trust anchor must be provided")]);
        let block = |label: &str| format!("-----BEGIN {label}-----\nYWJj\n-----END {label}-----\n");
        assert_eq!(found(&block("KEY")), [format!("{omitted} entry 0 has bad block type: KEY")]);
        assert_eq!(found(&block(CERTIFICATE)), [format!("{omitted} entry 0 does not parse as X.509")]);
    }
}
