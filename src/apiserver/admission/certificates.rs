//! What certificates are signed is a matter of who may sign for a signer: CertificateApproval, CertificateSigning and
//! ClusterTrustBundleAttest. And no client certificate makes anybody a master: CertificateSubjectRestriction.

use api::{Failure, Fields};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use super::{Attributes, Operation, Plugin};
use crate::authz::signers;
use crate::cache::Cache;
use crate::identity::Identity;
use crate::server::ApiServer;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// CertificateApproval: whoever approves a request must be allowed to for the request's signer.
pub struct CertificateApproval;

/// CertificateSigning: whoever signs must be allowed to for the signer.
pub struct CertificateSigning;

/// ClusterTrustBundleAttest: whoever publishes a signer's trust anchors must be allowed to attest for it.
pub struct ClusterTrustBundleAttest;

fn updates_request(attributes: &Attributes<'_>, subresource: &str) -> bool {
    let resource = &attributes.row.resource;
    attributes.operation == Operation::Update
        && attributes.subresource == Some(subresource)
        && resource.group == "certificates.k8s.io"
        && resource.plural == "certificatesigningrequests"
}

async fn demand(server: &ApiServer, attributes: &Attributes<'_>, verb: &str, request: &Value) -> Result<(), Failure> {
    let signer = request.part("spec").text("signerName");
    if signers::may(server.authorizer(), attributes.user, verb, signer).await {
        return Ok(());
    }
    Err(attributes.refuse(format!("user not permitted to {verb} requests with signerName \"{signer}\"")))
}

impl Plugin for CertificateApproval {
    fn asks(&self, attributes: &Attributes<'_>) -> bool {
        updates_request(attributes, "approval")
    }

    fn ask<'a>(
        &'a self,
        server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        _object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            match old {
                Some(old) => demand(server, attributes, "approve", old).await,
                None => Ok(()),
            }
        })
    }
}

impl Plugin for CertificateSigning {
    fn asks(&self, attributes: &Attributes<'_>) -> bool {
        updates_request(attributes, "status")
    }

    fn ask<'a>(
        &'a self,
        server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            match (object, old) {
                (Some(object), Some(old)) if signed(object, old) => demand(server, attributes, "sign", old).await,
                _ => Ok(()),
            }
        })
    }
}

impl Plugin for ClusterTrustBundleAttest {
    fn asks(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is("certificates.k8s.io", "clustertrustbundles")
            && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    fn ask<'a>(
        &'a self,
        server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let Some(object) = object else { return Ok(()) };
            let signer = object.part("spec").text("signerName");
            // The garbage collector and a storage migration say nothing new.
            let unchanged = old.is_some_and(|old| is_about_ownership_only(object, old));
            if signer.is_empty()
                || unchanged
                || signers::may(server.authorizer(), attributes.user, "attest", signer).await
            {
                return Ok(());
            }
            Err(attributes.refuse(format!("user not permitted to attest for signerName \"{signer}\"")))
        })
    }
}

/// Nothing differs but owners, finalizers and managed fields.
fn is_about_ownership_only(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.object("metadata") {
            for field in ["ownerReferences", "finalizers", "managedFields"] {
                metadata.unset(field);
            }
        }
        object
    };
    rest(new) == rest(old)
}

fn signed(object: &Value, old: &Value) -> bool {
    let (new, old) = (object.part("status"), old.part("status"));
    new.text("certificate") != old.text("certificate") || new.list("conditions") != old.list("conditions")
}

pub struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("certificates.k8s.io", "certificatesigningrequests")
            || attributes.operation != Operation::Create
        {
            return Ok(());
        }
        let Some(spec) = object.map(|object| object.part("spec")) else { return Ok(()) };
        if spec.text("signerName") != CLIENT_SIGNER {
            return Ok(());
        }
        let subject = subject(spec.text("request"))
            .ok_or_else(|| attributes.refuse("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"))?;
        if subject.organizations.iter().any(|group| group == Identity::MASTERS) {
            return Err(attributes
                .refuse(format!("use of {CLIENT_SIGNER} signer with {} group is not allowed", Identity::MASTERS)));
        }
        Ok(())
    }
}

/// For whom a certificate is asked.
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// `request` is the field of a CertificateSigningRequest: PEM in base64.
pub fn subject(request: &str) -> Option<Subject> {
    let pem = STANDARD.decode(request).ok()?;
    let (_, block) = parse_x509_pem(&pem).ok()?;
    if block.label != "CERTIFICATE REQUEST" {
        return None;
    }
    let (_, parsed) = X509CertificationRequest::from_der(&block.contents).ok()?;
    let subject = &parsed.certification_request_info.subject;
    let text = |one: &x509_parser::x509::AttributeTypeAndValue<'_>| one.as_str().unwrap_or_default().to_owned();
    Some(Subject {
        common_name: subject.iter_common_name().last().map(text).unwrap_or_default(),
        organizations: subject.iter_organization().map(text).collect(),
    })
}

#[cfg(test)]
mod tests {
    use api::Verb;
    use pki::{KeyAndRequest, Profile};
    use serde_json::json;

    use super::*;
    use crate::testing::Fixture;

    const GROUP: &str = "certificates.k8s.io";
    const REQUESTS: &str = "certificatesigningrequests";

    fn request(name: &str, signer: &str, common_name: &str, groups: &[&str]) -> Value {
        let made = KeyAndRequest::new(&Profile::client(common_name, groups)).unwrap();
        json!({"metadata": {"name": name}, "spec": {
            "signerName": signer, "request": STANDARD.encode(made.request_pem), "usages": ["client auth"],
        }})
    }

    #[tokio::test]
    async fn nobody_becomes_a_master_by_certificate() {
        let t = Fixture::start().await;
        let made = t.create(GROUP, REQUESTS, request("a", CLIENT_SIGNER, "jane", &["dev"])).await;
        assert!(made.is_ok(), "{made:?}");
        let failure =
            t.create(GROUP, REQUESTS, request("b", CLIENT_SIGNER, "jane", &["system:masters"])).await.unwrap_err();
        assert!(failure.message.ends_with("signer with system:masters group is not allowed"), "{failure}");
        let node = Identity::node("n1");
        let kubelet = "kubernetes.io/kube-apiserver-client-kubelet";
        for (name, expected) in [("n1", true), ("n2", false)] {
            let body = request(name, kubelet, &format!("system:node:{name}"), &["system:nodes"]);
            let made = t.server.call(&node, t.ask(Verb::Create, GROUP, REQUESTS, Some(body))).await;
            assert_eq!(made.is_ok(), expected, "{name}: {:?}", made.err());
        }
    }

    #[tokio::test]
    async fn who_approves_and_signs_may_do_so_for_the_signer() {
        let t = Fixture::start().await;
        let clerk = Identity::user("clerk", Vec::<String>::new());
        let role = json!({"metadata": {"name": "clerk"}, "rules": [
            {"apiGroups": [GROUP], "resources": [format!("{REQUESTS}/approval"), format!("{REQUESTS}/status")],
             "verbs": ["update"]},
            {"apiGroups": [GROUP], "resources": ["signers"], "resourceNames": ["example.com/*"],
             "verbs": ["approve"]},
        ]});
        t.create("rbac.authorization.k8s.io", "clusterroles", role).await.unwrap();
        let binding = json!({"metadata": {"name": "clerk"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "clerk"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "clerk"}]});
        t.create("rbac.authorization.k8s.io", "clusterrolebindings", binding).await.unwrap();
        t.catch_up().await;
        for (name, signer, expected) in [("a", "example.com/x", true), ("b", "example.org/x", false)] {
            let mut made = t.create(GROUP, REQUESTS, request(name, signer, "jane", &[])).await.unwrap();
            made["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]});
            let approve = t.ask(Verb::Update, GROUP, &format!("{REQUESTS}/{name}/approval"), Some(made.clone()));
            let approved = t.server.call(&clerk, approve).await;
            assert_eq!(approved.is_ok(), expected, "{name}: {:?}", approved.err());
            let mut signed = t.get(GROUP, &format!("{REQUESTS}/{name}")).await.unwrap();
            signed["status"]["conditions"] = json!([{"type": "Failed", "status": "True", "reason": "r"}]);
            let sign = t.ask(Verb::Update, GROUP, &format!("{REQUESTS}/{name}/status"), Some(signed));
            let failure = t.server.call(&clerk, sign).await.unwrap_err();
            let text = format!("user not permitted to sign requests with signerName \"{signer}\"");
            assert!(failure.message.ends_with(&text), "{failure}");
        }
    }
}
