//! What stands in the request path: admission configuration, priority and fairness.

use super::{Built, global};
use crate::{defaults, validation};

pub(super) fn add(rows: &mut Vec<Built>) {
    let admission = |plural, kind| {
        global("admissionregistration.k8s.io", "v1", plural, kind).category("api-extensions").generation().conditional()
    };
    let flow = |plural, kind| global("flowcontrol.apiserver.k8s.io", "v1", plural, kind).status().generation();
    rows.extend([
        admission("mutatingadmissionpolicies", "MutatingAdmissionPolicy").default(defaults::cluster::admission_policy),
        admission("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding")
            .default(defaults::cluster::admission_policy_binding),
        admission("mutatingwebhookconfigurations", "MutatingWebhookConfiguration")
            .validate(validation::admission::webhooks)
            .default(defaults::cluster::mutating_webhooks),
        admission("validatingadmissionpolicies", "ValidatingAdmissionPolicy")
            .default(defaults::cluster::admission_policy)
            .status(),
        admission("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding")
            .default(defaults::cluster::admission_policy_binding),
        admission("validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
            .validate(validation::admission::webhooks)
            .default(defaults::cluster::validating_webhooks),
        flow("flowschemas", "FlowSchema")
            .validate(validation::admission::flow_schema)
            .default(defaults::cluster::flow_schema),
        flow("prioritylevelconfigurations", "PriorityLevelConfiguration")
            .validate(validation::admission::priority_level)
            .default(defaults::cluster::priority_level),
    ]);
}
