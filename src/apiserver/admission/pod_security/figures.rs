//! What is counted of PodSecurity, under upstream's names.

use api::podsecurity::{Level, LevelVersion, Version};

use crate::admission::{Attributes, Operation};
use crate::metrics::{ByLabels, Counter, Kind, Text};

/// The newest version of the levels that is known, of Kubernetes 1.
const NEWEST_MINOR: u32 = 36;

pub struct Figures {
    /// Decision, level, version, mode, operation, resource, subresource.
    evaluations: ByLabels<7, Counter>,
    /// Operation, resource, subresource.
    exemptions: ByLabels<3, Counter>,
    /// Whether nothing could be evaluated, operation, resource, subresource.
    errors: ByLabels<4, Counter>,
}

impl Default for Figures {
    fn default() -> Figures {
        let evaluations = ByLabels::new(Counter::default);
        let exemptions = ByLabels::new(Counter::default);
        for operation in ["create", "update"] {
            evaluations.get(["allow", "privileged", "latest", "enforce", operation, "pod", ""]);
            for resource in ["pod", "controller"] {
                exemptions.get([operation, resource, ""]);
            }
        }
        Figures { evaluations, exemptions, errors: ByLabels::new(Counter::default) }
    }
}

impl Figures {
    pub fn evaluated(&self, allowed: bool, policy: LevelVersion, mode: &str, attributes: &Attributes<'_>) {
        let text = policy.to_string();
        let (level, version) = text.split_once(':').unwrap_or((&text, ""));
        let version = match policy.version {
            _ if policy.level == Level::Privileged => "latest",
            Version::Minor(minor) if minor > NEWEST_MINOR => "future",
            _ => version,
        };
        let decision = if allowed { "allow" } else { "deny" };
        let [operation, resource, subresource] = about(attributes);
        self.evaluations.get([decision, level, version, mode, operation, resource, subresource]).figures.inc();
    }

    pub fn exempted(&self, attributes: &Attributes<'_>) {
        self.exemptions.get(about(attributes)).figures.inc();
    }

    pub fn failed(&self, fatal: bool, attributes: &Attributes<'_>) {
        let [operation, resource, subresource] = about(attributes);
        let fatal = if fatal { "true" } else { "false" };
        self.errors.get([fatal, operation, resource, subresource]).figures.inc();
    }

    pub fn write(&self, out: &mut Text) {
        let name = "pod_security_errors_total";
        let help = "[ALPHA] Number of errors preventing normal evaluation. Non-fatal errors may result in the latest \
                    restricted profile being used for evaluation.";
        family(out, name, help, ["fatal", "request_operation", "resource", "subresource"], &self.errors);
        let name = "pod_security_evaluations_total";
        let help = "[ALPHA] Number of policy evaluations that occurred, not counting ignored or exempt requests.";
        let labels =
            ["decision", "policy_level", "policy_version", "mode", "request_operation", "resource", "subresource"];
        family(out, name, help, labels, &self.evaluations);
        let name = "pod_security_exemptions_total";
        let help = "[ALPHA] Number of exempt requests, not counting ignored or out of scope requests.";
        family(out, name, help, ["request_operation", "resource", "subresource"], &self.exemptions);
    }
}

fn family<const N: usize>(out: &mut Text, name: &str, help: &str, labels: [&str; N], counters: &ByLabels<N, Counter>) {
    let all = counters.all();
    if all.is_empty() {
        return;
    }
    out.family(name, Kind::Counter, help);
    for set in all {
        let values = set.values.iter().map(|value| value.as_ref());
        let mut pairs: Vec<(&str, &str)> = labels.into_iter().zip(values).collect();
        pairs.sort_unstable();
        out.sample(name, &pairs, set.figures.get());
    }
}

/// Operation, resource and subresource as they are counted.
fn about<'a>(attributes: &Attributes<'a>) -> [&'a str; 3] {
    let operation = match attributes.operation {
        Operation::Create => "create",
        Operation::Update => "update",
        Operation::Delete => "delete",
        Operation::Connect => "connect",
    };
    let resource = match attributes.row.resource.plural.as_ref() {
        "pods" => "pod",
        "namespaces" => "namespace",
        _ => "controller",
    };
    [operation, resource, attributes.subresource.unwrap_or_default()]
}
