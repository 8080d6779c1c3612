//! Certificates that kubelets ask for on behalf of pods (`certificates.k8s.io` PodCertificateRequest).
//!
//! That a certificate begins about now, and that whoever issues it may sign for the signer, the API server checks: here
//! is neither a clock nor an authorizer.

use aws_lc_rs::rsa::RsaPssSaltLength;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, ED25519, RSA_PSS_2048_8192_SHA256,
    RsaParameters, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::conditions::conditions;
use super::trust::{CERTIFICATE, blocks, signer_name};
use super::{Check, same};
use crate::{failure::FieldError, fields::Fields, format, meta, path::Path};

const UID_BYTES_MAX: usize = 128;
const KEY_BYTES_MAX: usize = 10 * 1024;
const PROOF_BYTES_MAX: usize = 10 * 1024;
const REQUEST_BYTES_MAX: usize = 10 * 1024;
const CHAIN_BYTES_MAX: usize = 100 * 1024;
const HOUR_SECONDS: i64 = 60 * 60;
const SECONDS_MAX: i64 = 91 * 24 * HOUR_SECONDS;
/// For signers of Kubernetes itself.
const KUBERNETES_SECONDS_MAX: i64 = 24 * HOUR_SECONDS;
const REFRESH_MARGIN_SECONDS: i64 = 10 * 60;
const DECISIONS: [&str; 3] = ["Issued", "Denied", "Failed"];

pub fn request(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    signer_name(check, spec.text("signerName"), &path.field("signerName"));
    user_annotations(check, spec.map("unverifiedUserAnnotations"), &path.field("unverifiedUserAnnotations"));
    for (name, uid) in [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")] {
        check.found(&path.field(name), spec.text(name), format::dns_subdomain(spec.text(name)));
        if spec.text(uid).is_empty() {
            check.invalid(&path.field(uid), &"".into(), "must not be empty");
        }
        if spec.text(uid).len() > UID_BYTES_MAX {
            check.errors.push(FieldError::too_long(&path.field(uid), UID_BYTES_MAX));
        }
    }
    let Some(seconds) = spec.int("maxExpirationSeconds") else {
        return check.required(&path.field("maxExpirationSeconds"), "must be set");
    };
    let domain = spec.text("signerName").split('/').next().unwrap_or_default();
    let kubernetes = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    let max = if kubernetes { KUBERNETES_SECONDS_MAX } else { SECONDS_MAX };
    if !(HOUR_SECONDS..=max).contains(&seconds) {
        let text = format!("must be in the range [{HOUR_SECONDS}, {max}]");
        check.invalid(&path.field("maxExpirationSeconds"), &seconds.into(), &text);
    }
    let [stub, key, proof] = ["stubPKCS10Request", "pkixPublicKey", "proofOfPossession"].map(|name| bytes(spec, name));
    let found = match (stub.is_empty(), key.is_empty(), proof.is_empty()) {
        (false, true, true) => stub_request(&stub, &path),
        (true, false, false) => proven(&key, &proof, spec.text("podUID"), &path),
        _ => {
            let text = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
            Err(FieldError::invalid_as_a_whole(&path, text))
        }
    };
    check.errors.extend(found.err());
}

/// Nothing but the metadata can be changed beside the status.
pub fn request_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    if subresource == Some("status") {
        decided(check, object, old);
    } else {
        check.unchanged(object, old, &Path::Root, "spec");
    }
}

/// Keys that a domain goes before, in all as large as annotations may be.
/// What whoever asks wants the signer to know: keys with a domain.
pub(crate) fn user_annotations(check: &mut Check<'_>, annotations: Option<&Map<String, Value>>, path: &Path<'_>) {
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        let key = key.to_lowercase();
        let findings = format::label_key(&key);
        if findings.is_empty() && !key.contains('/') {
            let text = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            check.invalid(path, &key.as_str().into(), text);
        }
        check.found(path, &key, findings);
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > meta::ANNOTATIONS_BYTES_MAX {
        check.errors.push(FieldError::too_long(path, meta::ANNOTATIONS_BYTES_MAX));
    }
}

fn bytes(spec: &Value, name: &str) -> Vec<u8> {
    STANDARD.decode(spec.text(name)).unwrap_or_default()
}

/// A request that says nothing but which key its sender has.
fn stub_request(der: &[u8], spec: &Path<'_>) -> Result<(), FieldError> {
    let path = spec.field("stubPKCS10Request");
    if der.len() > REQUEST_BYTES_MAX {
        return Err(FieldError::too_long(&path, REQUEST_BYTES_MAX));
    }
    let Some(request) = signing_request(der) else {
        return Err(FieldError::invalid_as_a_whole(&path, "must be a valid PKCS#10 CSR"));
    };
    algorithms(&request.certification_request_info.subject_pki, &path, "P256, P384, or P521")?;
    request.verify_signature().map_err(|_| FieldError::invalid_as_a_whole(&path, "invalid signature"))
}

fn signing_request(der: &[u8]) -> Option<X509CertificationRequest<'_>> {
    X509CertificationRequest::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, request)| request)
}

/// The older way: a key, and the pod's UID signed with it.
fn proven(der: &[u8], proof: &[u8], uid: &str, spec: &Path<'_>) -> Result<(), FieldError> {
    let path = spec.field("pkixPublicKey");
    if der.len() > KEY_BYTES_MAX {
        return Err(FieldError::too_long(&path, KEY_BYTES_MAX));
    }
    if proof.len() > PROOF_BYTES_MAX {
        return Err(FieldError::too_long(spec.field("proofOfPossession").to_string(), PROOF_BYTES_MAX));
    }
    let Some(key) = public_key(der) else {
        return Err(FieldError::invalid_as_a_whole(&path, "must be a valid PKIX-serialized public key"));
    };
    let verifies = |algorithm: &&'static dyn VerificationAlgorithm| {
        UnparsedPublicKey::new(*algorithm, &key.subject_public_key.data).verify(uid.as_bytes(), proof).is_ok()
    };
    if algorithms(&key, &path, "P256 or P384")?.iter().any(verifies) {
        return Ok(());
    }
    let text = "could not verify proof-of-possession signature";
    Err(FieldError::invalid_as_a_whole(spec.field("proofOfPossession").to_string(), text))
}

fn public_key(der: &[u8]) -> Option<SubjectPublicKeyInfo<'_>> {
    SubjectPublicKeyInfo::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, key)| key)
}

/// Go signs with as much salt as there is room for, others with as much as the digest is long.
static RSA_ALGORITHMS: [&dyn VerificationAlgorithm; 2] = [&RSA_PSS_2048_8192_SHA256, &RSA_PSS_SALTED];
static RSA_PSS_SALTED: RsaParameters = RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);

/// How something may have been signed with a key, if it is of a kind that may be.
fn algorithms(
    key: &SubjectPublicKeyInfo<'_>,
    path: &Path<'_>,
    curves: &str,
) -> Result<&'static [&'static dyn VerificationAlgorithm], FieldError> {
    let unknown = || {
        let text = "unknown public key type; supported types are Ed25519, ECDSA, and RSA";
        FieldError::invalid_as_a_whole(path, text)
    };
    match key.parsed().map_err(|_| unknown())? {
        PublicKey::EC(_) => {
            let curve =
                key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
            match curve.as_deref() {
                Some("1.2.840.10045.3.1.7") => Ok(&[&ECDSA_P256_SHA256_ASN1]),
                Some("1.3.132.0.34") => Ok(&[&ECDSA_P384_SHA256_ASN1]),
                Some("1.3.132.0.35") => Ok(&[&ECDSA_P521_SHA256_ASN1]),
                _ => {
                    let text = format!("elliptic public keys must use curve {curves}");
                    Err(FieldError::invalid(path, &"curve P-224".into(), &text))
                }
            }
        }
        PublicKey::RSA(key) => {
            let bits = key.key_size();
            if bits == 3072 || bits == 4096 {
                return Ok(&RSA_ALGORITHMS);
            }
            let value = format!("{bits}-bit modulus");
            Err(FieldError::invalid(path, &value.into(), "RSA keys must have modulus size 3072 or 4096"))
        }
        _ if key.algorithm.algorithm.to_id_string() == "1.3.101.112" => Ok(&[&ED25519]),
        _ => Err(unknown()),
    }
}

fn decision(object: &Value) -> Option<&str> {
    let conditions = object.part("status").list("conditions").iter();
    conditions
        .filter(|one| one.text("status") == "True")
        .map(|one| one.text("type"))
        .find(|one| DECISIONS.contains(one))
}

/// A request is decided once, in one way.
fn decided(check: &mut Check<'_>, object: &Value, old: &Value) {
    let root = Path::Root;
    let path = root.field("status");
    let (status, before) = (object.part("status"), old.part("status"));
    // Upstream writes the index as if it were a field of its own.
    let list = path.field("conditions");
    let mut decisions = 0;
    for (index, one) in status.list("conditions").iter().enumerate() {
        let index = format!("[{index}]");
        let path = list.field(&index);
        if !DECISIONS.contains(&one.text("type")) {
            check.not_supported(&path.field("type"), one.part("type"), &DECISIONS);
            continue;
        }
        decisions += 1;
        if decisions > 1 {
            let text = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            check.invalid(&path.field("type"), one.part("type"), text);
        }
        if one.text("status") != "True" {
            check.not_supported(&path.field("status"), one.part("status"), &["True"]);
        }
    }
    conditions(check, status, &path);
    if !check.errors.is_empty() {
        return;
    }
    let mut whole = |fine: bool, text: &str| {
        if !fine {
            check.errors.push(FieldError::invalid_as_a_whole(&path, text));
        }
    };
    match (decision(old), decision(object)) {
        (Some(_), _) => {
            whole(same(status, before), "immutable after PodCertificateRequest is issued, denied, or failed");
        }
        (None, Some("Issued")) => check.errors.extend(issued(object, &path).err()),
        (None, Some(_)) => {
            let bare = ["certificateChain", "notBefore", "notAfter", "beginRefreshAt"]
                .iter()
                .all(|name| status.text(name).is_empty());
            whole(bare, "non-condition status fields must be empty when denying or failing the PodCertificateRequest");
        }
        (None, None) => {
            let text = "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"";
            whole(same(status, before), text);
        }
    }
}

/// Whether the certificate is the one that was asked for, and its times are those of the status.
fn issued(object: &Value, path: &Path<'_>) -> Result<(), FieldError> {
    let (spec, status) = (object.part("spec"), object.part("status"));
    let chain = status.text("certificateChain");
    let chain_path = path.field("certificateChain");
    if chain.len() > CHAIN_BYTES_MAX {
        return Err(FieldError::too_long(&chain_path, CHAIN_BYTES_MAX));
    }
    let wrong = |text: &str| Err(FieldError::invalid(&chain_path, &chain.into(), text));
    let mut blocks = blocks(chain);
    let Some(leaf) = blocks.next() else {
        return wrong("issued certificate chain must contain at least one certificate");
    };
    if leaf.label != CERTIFICATE {
        return wrong("issued certificate chain must consist entirely of CERTIFICATE PEM blocks");
    }
    let Ok((_, certificate)) = X509Certificate::from_der(&leaf.contents) else {
        return wrong("leaf certificate does not parse as valid X.509");
    };
    if certificate.public_key().raw != wanted_key(spec) {
        return wrong("leaf certificate was not issued to the requested public key");
    }
    for name in ["notBefore", "notAfter"] {
        if !status.has(name) {
            return Err(FieldError::required(
                &path.field(name),
                "must be present and consistent with the issued certificate",
            ));
        }
    }
    if !status.has("beginRefreshAt") {
        let text = "must be present and in the range [notbefore+10min, notafter-10min]";
        return Err(FieldError::required(&path.field("beginRefreshAt"), text));
    }
    times(spec, status, &certificate, path)?;
    for block in blocks {
        if block.label != CERTIFICATE {
            return wrong("issued certificate chain must consist entirely of CERTFICATE PEM blocks");
        }
        if X509Certificate::from_der(&block.contents).is_err() {
            return wrong("intermediate certificate does not parse as valid X.509");
        }
    }
    Ok(())
}

/// The key that was asked for, in DER.
fn wanted_key(spec: &Value) -> Vec<u8> {
    let stub = bytes(spec, "stubPKCS10Request");
    match signing_request(&stub) {
        Some(request) => request.certification_request_info.subject_pki.raw.to_vec(),
        None => bytes(spec, "pkixPublicKey"),
    }
}

fn times(spec: &Value, status: &Value, certificate: &X509Certificate<'_>, path: &Path<'_>) -> Result<(), FieldError> {
    let seconds = |name: &str| status.text(name).parse().map(Timestamp::as_second).unwrap_or_default();
    let (begin, end) = (seconds("notBefore"), seconds("notAfter"));
    let validity = certificate.validity();
    let (of_begin, of_end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let wrong = |name: &str, text: &str| Err(FieldError::invalid(&path.field(name), status.part(name), text));
    if begin != of_begin {
        return wrong("notBefore", "must be set to the NotBefore time encoded in the leaf certificate");
    }
    if end != of_end {
        return wrong("notAfter", "must be set to the NotAfter time encoded in the leaf certificate");
    }
    let lifetime = |text: &str| {
        let value = format!("{}s", of_end - of_begin);
        Err(FieldError::invalid(&path.field("certificateChain"), &value.into(), text))
    };
    if of_end - of_begin < HOUR_SECONDS {
        return lifetime("leaf certificate lifetime must be >= 1 hour");
    }
    let max = spec.int("maxExpirationSeconds").unwrap_or_default();
    if of_end - of_begin > max {
        return lifetime(&format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({max})"));
    }
    let refresh = seconds("beginRefreshAt");
    if refresh < begin + REFRESH_MARGIN_SECONDS {
        return wrong("beginRefreshAt", "must be at least 10 minutes after status.notBefore");
    }
    if refresh > end - REFRESH_MARGIN_SECONDS {
        return wrong("beginRefreshAt", "must be at least 10 minutes before status.notAfter");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    fn asked() -> Value {
        let pair = Ed25519KeyPair::generate().unwrap();
        let head = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let key = [&head[..], pair.public_key().as_ref()].concat();
        json!({"spec": {"signerName": "example.com/signer", "podName": "p", "podUID": "pod-uid-1",
            "serviceAccountName": "s", "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3",
            "maxExpirationSeconds": 86400, "pkixPublicKey": STANDARD.encode(key),
            "proofOfPossession": STANDARD.encode(pair.sign(b"pod-uid-1"))}})
    }

    fn found(object: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        request(object, &mut errors);
        errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn whoever_asks_has_the_key() {
        assert_eq!(found(&asked()), Vec::<String>::new());
        let mut other = asked();
        other["spec"]["podUID"] = json!("pod-uid-2");
        assert_eq!(found(&other), ["spec.proofOfPossession"]);
        let mut both = asked();
        both["spec"]["stubPKCS10Request"] = json!("AAAA");
        assert_eq!(found(&both), ["spec"]);
        let mut stub = asked();
        stub["spec"] = json!({"stubPKCS10Request": "AAAA", "signerName": "kubernetes.io/kube-apiserver-client-pod",
            "podName": "p", "podUID": "", "serviceAccountName": "s", "serviceAccountUID": "2", "nodeName": "n",
            "nodeUID": "3", "maxExpirationSeconds": 86401, "unverifiedUserAnnotations": {"a": "b"}});
        let all = ["unverifiedUserAnnotations", "podUID", "maxExpirationSeconds", "stubPKCS10Request"];
        assert_eq!(found(&stub), all.map(|name| format!("spec.{name}")));
    }

    #[test]
    fn a_request_is_decided_once() {
        let decided = |kind: &str, status: &str| {
            let mut object = asked();
            object["status"] = json!({"conditions": [{"type": kind, "status": status, "reason": "R",
                "lastTransitionTime": "2026-01-02T03:04:05Z"}]});
            object
        };
        let found = |new: &Value, old: &Value| {
            let mut errors = Vec::new();
            request_update(new, old, Some("status"), &mut errors);
            errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert!(found(&decided("Denied", "True"), &asked()).is_empty());
        assert_eq!(found(&decided("Failed", "True"), &decided("Denied", "True")), ["status"]);
        assert_eq!(found(&decided("Denied", "False"), &asked()), ["status.conditions.[0].status"]);
        assert_eq!(found(&decided("Other", "True"), &asked()), ["status.conditions.[0].type"]);
        assert_eq!(found(&decided("Issued", "True"), &asked()), ["status.certificateChain"]);
    }
}
