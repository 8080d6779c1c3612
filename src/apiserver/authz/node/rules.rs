//! What every kubelet may do, whatever its Pods are (upstream: `bootstrappolicy.NodeRules`).

use std::sync::LazyLock;

use crate::authz::Rule;

pub static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rule = |verbs: &[&str], group: &str, resources: &[&str]| Rule {
        verbs: verbs.iter().map(|one| (*one).to_owned()).collect(),
        api_groups: vec![group.to_owned()],
        resources: resources.iter().map(|one| (*one).to_owned()).collect(),
        ..Rule::default()
    };
    const READ: &[&str] = &["get", "list", "watch"];
    vec![
        rule(&["create"], "authentication.k8s.io", &["tokenreviews"]),
        rule(&["create"], "authorization.k8s.io", &["subjectaccessreviews", "localsubjectaccessreviews"]),
        rule(READ, "", &["services"]),
        rule(&["create", "update", "patch"], "", &["events"]),
        rule(&["create", "update", "patch"], "events.k8s.io", &["events"]),
        rule(&["get"], "", &["endpoints"]),
        rule(READ, "discovery.k8s.io", &["endpointslices"]),
        rule(&["create", "get", "list", "watch"], "certificates.k8s.io", &["certificatesigningrequests"]),
        rule(READ, "certificates.k8s.io", &["clustertrustbundles"]),
        rule(READ, "node.k8s.io", &["runtimeclasses"]),
        rule(READ, "storage.k8s.io", &["csidrivers"]),
    ]
});
