//! What stands in the request path: admission configuration, priority and fairness.

use super::{Built, global};
use crate::strategy::Functions;

pub(super) fn add(rows: &mut Vec<Built>) {
    let admission = |plural, kind| {
        global("admissionregistration.k8s.io", "v1", plural, kind).category("api-extensions").generation().conditional()
    };
    let flow = |plural, kind| {
        global("flowcontrol.apiserver.k8s.io", "v1", plural, kind).status().generation().with(Functions::WITH_STATUS)
    };
    rows.extend([
        admission("mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
        admission("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding"),
        admission("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
        admission("validatingadmissionpolicies", "ValidatingAdmissionPolicy").status().with(Functions::WITH_STATUS),
        admission("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
        admission("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
        flow("flowschemas", "FlowSchema"),
        flow("prioritylevelconfigurations", "PriorityLevelConfiguration"),
    ]);
}
