//! Who may approve and sign for a signer, and what the kubelets' requests for certificates of pods need besides.

use api::{Failure, FieldError, Fields, Row};
use jiff::Timestamp;
use serde_json::Value;

use super::{Action, Authorizer, Decision};
use crate::identity::Identity;

const GROUP: &str = "certificates.k8s.io";
/// A certificate that is issued begins no further from now than this.
const SKEW_SECONDS: i64 = 5 * 60;

/// `verb` on the signer, or on all signers of its domain.
pub async fn may(authorizer: &Authorizer, user: &Identity, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer, &format!("{domain}/*")] {
        let action = Action::Resource { verb, group: GROUP, resource: "signers", subresource: "", namespace: "", name };
        if matches!(authorizer.decide(user, &action.into()).await, Decision::Allow { .. }) {
            return true;
        }
    }
    false
}

/// Whoever answers a PodCertificateRequest may sign for its signer, and issues certificates that begin now.
pub async fn check(
    authorizer: &Authorizer,
    user: &Identity,
    row: &Row,
    subresource: Option<&str>,
    [object, old]: [&Value; 2],
    now: Timestamp,
) -> Result<(), Failure> {
    if row.resource.group != GROUP || row.resource.plural != "podcertificaterequests" || subresource != Some("status") {
        return Ok(());
    }
    let (status, before) = (object.part("status"), old.part("status"));
    if status == before {
        return Ok(());
    }
    let refuse = |error| Failure::invalid(GROUP, &row.kind, object.part("metadata").text("name"), vec![error]);
    let begin = status.text("notBefore");
    if begin != before.text("notBefore")
        && begin.parse().is_ok_and(|at: Timestamp| (at.as_second() - now.as_second()).abs() >= SKEW_SECONDS)
    {
        let text = "must be set to within 5 minutes of kube-apiserver's current time";
        return Err(refuse(FieldError::invalid("status.notBefore", &begin.into(), text)));
    }
    let signer = old.part("spec").text("signerName");
    if may(authorizer, user, "sign", signer).await {
        return Ok(());
    }
    let text = format!("User {:?} is not permitted to \"sign\" for signer {signer:?}", user.name);
    Err(refuse(FieldError::forbidden("spec.signerName", &text)))
}
