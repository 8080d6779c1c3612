//! The FlowSchemas and PriorityLevelConfigurations that every cluster has (upstream: `flowcontrol/bootstrap`).

use serde_json::{Value, json};

/// Objects with this annotation at `true` follow the server's idea of them.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Those without which the server does not go.
pub fn mandatory_levels() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let catch_all = json!({
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}},
    });
    vec![object("exempt", exempt), object("catch-all", catch_all)]
}

pub fn mandatory_schemas() -> Vec<Value> {
    vec![
        schema("exempt", "exempt", 1, None, groups(&["system:masters"]), Some(everything()), &["*"], &["*"]),
        schema("catch-all", "catch-all", 10_000, Some("ByUser"), everybody(), Some(everything()), &["*"], &["*"]),
    ]
}

/// All levels, the mandatory ones first.
pub fn levels() -> Vec<Value> {
    let queuing = |name: &str, shares: u32, lendable: u32, queues: u32, hand: u32| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let limited = json!({
            "nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": {"type": "Queue", "queuing": queuing},
        });
        object(name, json!({"type": "Limited", "limited": limited}))
    };
    let mut levels = mandatory_levels();
    levels.extend([
        queuing("system", 30, 33, 64, 6),
        queuing("node-high", 40, 25, 64, 6),
        queuing("leader-election", 10, 0, 16, 4),
        queuing("workload-high", 40, 50, 128, 6),
        queuing("workload-low", 100, 90, 128, 6),
        queuing("global-default", 20, 50, 128, 6),
    ]);
    levels
}

/// All FlowSchemas, the mandatory ones first.
pub fn schemas() -> Vec<Value> {
    let manager = || users(&["system:kube-controller-manager"]);
    let scheduler = || users(&["system:kube-scheduler"]);
    let accounts = || json!([{"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}}]);
    let mut leaders = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    if let (Some(leaders), Value::Array(mut accounts)) = (leaders.as_array_mut(), accounts()) {
        leaders.append(&mut accounts);
    }
    let leases = |verbs: &[&str]| resources(verbs, &["coordination.k8s.io"], &["leases"], false);
    let nodes = json!([resources(&["*"], &[""], &["nodes", "nodes/status"], true), leases(&["*"])]);
    let all = || Some(everything());
    let (user, namespace) = (Some("ByUser"), Some("ByNamespace"));
    let mut schemas = mandatory_schemas();
    schemas.extend([
        schema("probes", "exempt", 2, None, everybody(), None, &["get"], &["/healthz", "/readyz", "/livez"]),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            user,
            leaders,
            Some(json!([leases(&["get", "create", "update"])])),
            &[],
            &[],
        ),
        schema("system-node-high", "node-high", 400, user, groups(&["system:nodes"]), Some(nodes), &[], &[]),
        schema("system-nodes", "system", 500, user, groups(&["system:nodes"]), all(), &["*"], &["*"]),
        schema("kube-controller-manager", "workload-high", 800, namespace, manager(), all(), &["*"], &["*"]),
        schema("kube-scheduler", "workload-high", 800, namespace, scheduler(), all(), &["*"], &["*"]),
        schema("kube-system-service-accounts", "workload-high", 900, namespace, accounts(), all(), &["*"], &["*"]),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            user,
            groups(&["system:serviceaccounts"]),
            all(),
            &["*"],
            &["*"],
        ),
        schema("global-default", "global-default", 9900, user, everybody(), all(), &["*"], &["*"]),
    ]);
    schemas
}

fn object(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

#[expect(clippy::too_many_arguments, reason = "a row of the table above")]
fn schema(
    name: &str,
    level: &str,
    precedence: u32,
    distinguisher: Option<&str>,
    subjects: Value,
    resource_rules: Option<Value>,
    path_verbs: &[&str],
    paths: &[&str],
) -> Value {
    let mut rule = json!({"subjects": subjects});
    if let Some(rules) = resource_rules {
        rule["resourceRules"] = rules;
    }
    if !paths.is_empty() {
        rule["nonResourceRules"] = json!([{"verbs": path_verbs, "nonResourceURLs": paths}]);
    }
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule],
    });
    if let Some(kind) = distinguisher {
        spec["distinguisherMethod"] = json!({"type": kind});
    }
    object(name, spec)
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn everybody() -> Value {
    groups(&["system:unauthenticated", "system:authenticated"])
}

fn everything() -> Value {
    json!([resources(&["*"], &["*"], &["*"], true)])
}

fn resources(verbs: &[&str], groups: &[&str], resources: &[&str], cluster_scope: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": ["*"]});
    if cluster_scope {
        rule["clusterScope"] = true.into();
    }
    rule
}
