//! Certificates for nodes: approves what a node may have, and signs what is approved.
//!
//! Signers: `kubernetes.io/kube-apiserver-client-kubelet` for a node's client certificate, asked for with the join token
//! or, to renew it, with the old one; `kubernetes.io/kubelet-serving` for its serving certificate;
//! `kubernetes.io/kube-apiserver-client` only after somebody approved it by hand.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Failure, Informer, Queue, Scope};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use task::Shutdown;

use crate::shared::owned::gone_is_fine;

const CLIENT_KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const SERVING: &str = "kubernetes.io/kubelet-serving";
/// Requests are deleted this long after they were settled.
const KEPT: Duration = Duration::from_secs(3600);
/// Requests that nobody settles are deleted after this long.
const PENDING_KEPT: Duration = Duration::from_secs(24 * 3600);

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// It asks for names of other kinds as well.
    pub other_names: bool,
}

/// Where the certificate authority is.
pub trait Signer: Send + Sync + 'static {
    /// Reads a PEM request and checks its signature.
    fn read(&self, request_pem: &str) -> Result<Subject, String>;
    /// Signs a certificate with what was asked for, for servers or for clients.
    fn sign(&self, request_pem: &str, subject: &Subject, serving: bool) -> Result<String, String>;
}

struct Certificates {
    client: Client,
    requests: Arc<Informer<CertificateSigningRequest>>,
    nodes: Arc<Informer<Node>>,
    signer: Arc<dyn Signer>,
    /// Addresses that no node may have a certificate for: the API server's.
    reserved: Vec<IpAddr>,
}

pub async fn run(
    client: Client,
    signer: Arc<dyn Signer>,
    reserved: Vec<IpAddr>,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let controller = Arc::new(Certificates {
        requests: client.informer(Scope::all()),
        nodes: client.informer(Scope::all()),
        client,
        signer,
        reserved,
    });
    controller.requests.synced().await;
    controller.nodes.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("certificates", queue.clone(), 1, shutdown.clone(), move |name: String| {
        let controller = reconciler.clone();
        async move { controller.reconcile(&name).await }
    });
    let (mut requests, mut nodes) = (controller.requests.subscribe(), controller.nodes.subscribe());
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = requests.next() => queue.add(change.key.name),
            change = nodes.next() => {
                if matters(change.old.as_deref(), change.new.as_deref()) {
                    controller.undecided().into_iter().for_each(|name| queue.add(name));
                }
            }
        }
    }
}

/// True if what becomes of a request may be another now: a joining node's depends on whether there is one of its name
/// that is alive, a serving certificate's on whose the addresses are.
fn matters(old: Option<&Node>, new: Option<&Node>) -> bool {
    old.is_some_and(is_alive) != new.is_some_and(is_alive) || old.map(addresses) != new.map(addresses)
}

fn is_alive(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
}

fn addresses(node: &Node) -> Vec<IpAddr> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    addresses.into_iter().flatten().filter_map(|address| address.address.parse().ok()).collect()
}

impl Certificates {
    async fn reconcile(&self, name: &str) -> Result<Option<Duration>, Failure> {
        let Some(request) = self.requests.get("", name) else { return Ok(None) };
        let settled = has(&request, "Denied") || has(&request, "Failed") || certificate(&request).is_some();
        if let Some(left) = left(&request, settled, Timestamp::now()) {
            if settled {
                return Ok(Some(left));
            }
        } else {
            gone_is_fine(self.client.delete::<CertificateSigningRequest>("", name, DeleteOptions::default()).await)?;
            return Ok(None);
        }
        let signer = request.spec.signer_name.as_str();
        if ![CLIENT_KUBELET, CLIENT, SERVING].contains(&signer) {
            return Ok(None);
        }
        let pem = String::from_utf8_lossy(&request.spec.request.0).into_owned();
        let subject = match self.signer.read(&pem) {
            Ok(subject) => subject,
            Err(why) => return self.fail(&request, &why).await,
        };
        if !has(&request, "Approved") {
            if self.approves(&request, &subject) {
                self.approve(&request).await?;
            }
            return Ok(None);
        }
        if let Err(why) = permitted(signer, &request.spec.usages.clone().unwrap_or_default(), &subject) {
            return self.fail(&request, why).await;
        }
        let pem = match self.signer.sign(&pem, &subject, signer == SERVING) {
            Ok(pem) => pem,
            Err(why) => return self.fail(&request, &why).await,
        };
        let mut signed = CertificateSigningRequest::clone(&request);
        signed.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
        gone_is_fine(self.client.update_status(&signed).await)?;
        Ok(None)
    }

    /// True for what a node may have without being asked.
    fn approves(&self, request: &CertificateSigningRequest, subject: &Subject) -> bool {
        let user = request.spec.username.as_deref().unwrap_or_default();
        let in_group = |name: &str| request.spec.groups.iter().flatten().any(|group| group == name);
        let signer = request.spec.signer_name.as_str();
        let Some(node) = subject.common_name.strip_prefix("system:node:") else { return false };
        if permitted(signer, &request.spec.usages.clone().unwrap_or_default(), subject).is_err() {
            return false;
        }
        let itself = user == subject.common_name && in_group("system:nodes");
        match signer {
            // A joining node may not take the name of one that is there: that one's own key renews its certificate.
            CLIENT_KUBELET => {
                itself
                    || (in_group("system:bootstrappers") && !self.nodes.get("", node).as_deref().is_some_and(is_alive))
            }
            SERVING => itself && self.may_serve(node, subject),
            _ => false,
        }
    }

    /// Requests that nobody has decided about.
    fn undecided(&self) -> Vec<String> {
        let requests = self.requests.list();
        let undecided =
            requests.iter().filter(|one| !["Approved", "Denied", "Failed"].iter().any(|kind| has(one, kind)));
        undecided.filter_map(|request| request.metadata.name.clone()).collect()
    }

    /// A node may serve under its own name, and under addresses that are nobody else's.
    fn may_serve(&self, node: &str, subject: &Subject) -> bool {
        let others: Vec<IpAddr> = self
            .nodes
            .list()
            .iter()
            .filter(|other| other.metadata.name.as_deref() != Some(node))
            .flat_map(|other| addresses(other))
            .collect();
        subject.dns_names.iter().all(|name| name == node)
            && subject.addresses.iter().all(|address| !others.contains(address) && !self.reserved.contains(address))
    }

    async fn approve(&self, request: &CertificateSigningRequest) -> Result<(), Failure> {
        let mut approved = request.clone();
        let condition = condition("Approved", "AutoApproved", "Auto approving kubelet certificate");
        approved.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
        gone_is_fine(self.client.update_subresource(&approved, "approval").await)
    }

    async fn fail(&self, request: &CertificateSigningRequest, why: &str) -> Result<Option<Duration>, Failure> {
        let mut failed = request.clone();
        let condition = condition("Failed", "SignerValidationFailure", why);
        failed.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
        gone_is_fine(self.client.update_status(&failed).await)?;
        Ok(None)
    }
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(Timestamp::now())),
        last_transition_time: Some(Time(Timestamp::now())),
    }
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == kind)
}

fn certificate(request: &CertificateSigningRequest) -> Option<&ByteString> {
    request.status.as_ref()?.certificate.as_ref().filter(|certificate| !certificate.0.is_empty())
}

/// How much longer a request is kept; `None` when its time is over.
fn left(request: &CertificateSigningRequest, settled: bool, now: Timestamp) -> Option<Duration> {
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let age = Duration::try_from(now.duration_since(created)).unwrap_or_default();
    let kept = if settled { KEPT } else { PENDING_KEPT };
    kept.checked_sub(age).filter(|left| !left.is_zero())
}

/// What each signer signs at all, whoever approved it.
fn permitted(signer: &str, usages: &[String], subject: &Subject) -> Result<(), &'static str> {
    let only = |allowed: &[&str], needed: &str| {
        usages.iter().all(|usage| allowed.contains(&usage.as_str())) && usages.iter().any(|usage| usage == needed)
    };
    let node_subject = subject.organizations == ["system:nodes"] && subject.common_name.starts_with("system:node:");
    let client_usages = ["digital signature", "key encipherment", "client auth"];
    match signer {
        CLIENT_KUBELET | SERVING if !node_subject => Err("the subject must be CN=system:node:<name>, O=system:nodes"),
        CLIENT_KUBELET if !only(&client_usages, "client auth") => Err("usages must be those of a client"),
        CLIENT_KUBELET if !subject.dns_names.is_empty() || !subject.addresses.is_empty() || subject.other_names => {
            Err("a client certificate has no alternative names")
        }
        SERVING if !only(&["digital signature", "key encipherment", "server auth"], "server auth") => {
            Err("usages must be those of a server")
        }
        SERVING if subject.dns_names.is_empty() && subject.addresses.is_empty() => {
            Err("a serving certificate needs a DNS name or an address")
        }
        SERVING if subject.other_names => Err("only DNS names and addresses are allowed as alternative names"),
        CLIENT if !only(&client_usages, "client auth") => Err("usages must be those of a client"),
        CLIENT if subject.organizations.iter().any(|organization| organization == "system:masters") => {
            Err("system:masters is not granted this way")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
