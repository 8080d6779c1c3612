//! What stands in the request path: admission configuration, priority and fairness.

use super::{Built, global};
use crate::{defaults, print, strategy::kinds, validation};

pub(super) fn add(rows: &mut Vec<Built>) {
    let admission = |plural, kind| {
        global("admissionregistration.k8s.io", "v1", plural, kind).category("api-extensions").generation().conditional()
    };
    let flow = |plural, kind| global("flowcontrol.apiserver.k8s.io", "v1", plural, kind).status().generation();
    rows.extend([
        admission("mutatingadmissionpolicies", "MutatingAdmissionPolicy")
            .show(print::MUTATING_POLICIES, print::mutating_policy)
            .validate(validation::policies::mutating)
            .default(defaults::cluster::admission_policy),
        admission("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding")
            .show(print::POLICY_BINDINGS, print::policy_binding)
            .validate(validation::policies::mutating_binding)
            .default(defaults::cluster::admission_policy_binding),
        admission("mutatingwebhookconfigurations", "MutatingWebhookConfiguration")
            .show(print::WEBHOOKS, print::webhooks)
            .validate(validation::webhooks::configuration)
            .default(defaults::cluster::mutating_webhooks),
        admission("validatingadmissionpolicies", "ValidatingAdmissionPolicy")
            .prepare_update(kinds::strict_status_update)
            .show(print::VALIDATING_POLICIES, print::validating_policy)
            .validate(validation::policies::validating)
            .validate_update(validation::policies::validating_update)
            .default(defaults::cluster::admission_policy)
            .status(),
        admission("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding")
            .show(print::POLICY_BINDINGS, print::policy_binding)
            .validate(validation::policies::validating_binding)
            .default(defaults::cluster::admission_policy_binding),
        admission("validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
            .show(print::WEBHOOKS, print::webhooks)
            .validate(validation::webhooks::configuration)
            .default(defaults::cluster::validating_webhooks),
        flow("flowschemas", "FlowSchema")
            .show(print::FLOW_SCHEMAS, print::flow_schema)
            .validate(validation::flowcontrol::flow_schema)
            .validate_update(validation::flowcontrol::flow_schema_update)
            .default(defaults::cluster::flow_schema),
        flow("prioritylevelconfigurations", "PriorityLevelConfiguration")
            .show(print::PRIORITY_LEVELS, print::priority_level)
            .validate(validation::flowcontrol::priority_level)
            .validate_update(validation::flowcontrol::priority_level_update)
            .default(defaults::cluster::priority_level),
    ]);
}
