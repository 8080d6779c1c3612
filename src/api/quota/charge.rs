//! Whether quotas have room for an object.

use super::amounts::{add, growth, print};
use super::{Amounts, Evaluator, Facts, Quota};

/// What must be said where it is limited.
const MUST_BE_SAID: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// What a request asks of the quotas of its namespace.
#[derive(Clone, Debug)]
pub struct Ask {
    pub evaluator: Evaluator,
    pub new: Facts,
    /// The object before an update.
    pub old: Option<Facts>,
    /// A status says what is so: it is charged and never refused.
    pub is_status: bool,
}

impl Ask {
    /// Some quota may have a say.
    pub fn concerns(&self, quota: &Quota) -> bool {
        quota.concerns(&self.evaluator, &self.new)
    }
}

/// What quotas have used with the object, by their index, where that is more than before; or why the object is too
/// much, in upstream's words.
pub fn check(quotas: &[Quota], ask: &Ask) -> Result<Vec<(usize, Amounts)>, String> {
    let mut concerned = Vec::new();
    for (index, quota) in quotas.iter().enumerate() {
        if !ask.concerns(quota) {
            continue;
        }
        let restricted: Vec<&String> = quota.hard.keys().filter(|name| ask.evaluator.covers(name)).collect();
        let required: Vec<&String> =
            restricted.iter().copied().filter(|name| MUST_BE_SAID.contains(&name.as_str())).collect();
        if let Some(missing) = ask.new.missing(&required) {
            return Err(format!("failed quota: {}: {missing}", quota.name));
        }
        if restricted.iter().any(|name| !quota.used.contains_key(*name)) {
            let names: Vec<&str> = restricted.iter().map(|name| name.as_str()).collect();
            return Err(format!("status unknown for quota: {}, resources: {}", quota.name, names.join(",")));
        }
        concerned.push((index, quota));
    }
    let negative = ask.new.usage.iter().filter(|(_, amount)| amount.is_negative());
    let negative: Vec<&str> = negative.map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
    }
    let nothing = Amounts::new();
    let mut charged = Vec::new();
    for (index, quota) in concerned {
        // An object that comes into a quota's scope counts as a whole.
        let counted = ask.old.as_ref().filter(|old| quota.concerns(&ask.evaluator, old));
        let mut requested = growth(&ask.new.usage, counted.map_or(&nothing, |old| &old.usage));
        requested.retain(|name, _| quota.hard.contains_key(name));
        if requested.is_empty() {
            continue;
        }
        let mut used = quota.used.clone();
        add(&mut used, &requested);
        if !ask.is_status {
            let too_much = |name: &String| used.get(name) > quota.hard.get(name);
            let only = |of: &Amounts| -> Amounts {
                requested
                    .keys()
                    .filter(|name| too_much(name))
                    .filter_map(|name| Some((name.clone(), *of.get(name)?)))
                    .collect()
            };
            let exceeding = only(&requested);
            if !exceeding.is_empty() {
                return Err(format!(
                    "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                    quota.name,
                    print(&exceeding),
                    print(&only(&quota.used)),
                    print(&only(&quota.hard))
                ));
            }
        }
        charged.push((index, used));
    }
    Ok(charged)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn quota(spec: Value, hard: Value, used: Value) -> Quota {
        Quota::read(&json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}}))
    }

    fn facts(plural: &str, object: &Value) -> Facts {
        Evaluator::of("", plural).unwrap().facts(object, Timestamp::UNIX_EPOCH)
    }

    fn ask(plural: &str, new: &Value, old: Option<&Value>) -> Ask {
        Ask {
            evaluator: Evaluator::of("", plural).unwrap(),
            new: facts(plural, new),
            old: old.map(|old| facts(plural, old)),
            is_status: false,
        }
    }

    fn pod(resources: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn a_quota_that_is_full_says_what_it_has() {
        let hard = json!({"pods": "2", "requests.cpu": "1", "count/pods": "9"});
        let full = quota(json!({}), hard.clone(), json!({"pods": "2", "requests.cpu": "900m", "count/pods": "2"}));
        let asked = ask("pods", &pod(json!({"requests": {"cpu": "200m"}})), None);
        assert_eq!(
            check(&[full], &asked).unwrap_err(),
            "exceeded quota: q, requested: pods=1,requests.cpu=200m, used: pods=2,requests.cpu=900m, limited: \
             pods=2,requests.cpu=1"
        );
        let free = quota(json!({}), hard, json!({"pods": "1", "requests.cpu": "0", "count/pods": "2"}));
        let used = check(&[free], &asked).unwrap();
        assert_eq!(print(&used[0].1), "count/pods=3,pods=2,requests.cpu=200m");
    }

    #[test]
    fn what_is_limited_must_be_said_and_known() {
        let limited = quota(json!({}), json!({"limits.memory": "1Gi"}), json!({"limits.memory": "0"}));
        assert_eq!(
            check(&[limited], &ask("pods", &pod(json!({})), None)).unwrap_err(),
            "failed quota: q: must specify limits.memory for: c"
        );
        let new = quota(json!({}), json!({"pods": "1"}), json!({}));
        assert_eq!(
            check(&[new], &ask("pods", &pod(json!({})), None)).unwrap_err(),
            "status unknown for quota: q, resources: pods"
        );
    }

    #[test]
    fn scopes_choose_the_pods_that_count() {
        let selector = |operator: &str| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": ["high"]},
            ]}})
        };
        let scoped = |spec| quota(spec, json!({"pods": "0"}), json!({"pods": "0"}));
        let best_effort = pod(json!({}));
        let mut other = pod(json!({"limits": {"cpu": "1"}}));
        other["spec"]["activeDeadlineSeconds"] = json!(5);
        other["spec"]["priorityClassName"] = json!("high");
        let term = json!({"topologyKey": "z", "namespaces": ["n"]});
        other["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!([term]);
        for (spec, counts_best_effort, counts_other) in [
            (json!({"scopes": ["BestEffort"]}), true, false),
            (json!({"scopes": ["NotBestEffort"]}), false, true),
            (json!({"scopes": ["Terminating"]}), false, true),
            (json!({"scopes": ["NotTerminating", "BestEffort"]}), true, false),
            (json!({"scopes": ["CrossNamespacePodAffinity"]}), false, true),
            (selector("In"), false, true),
            (selector("NotIn"), true, false),
            (selector("DoesNotExist"), true, false),
        ] {
            let quotas = [scoped(spec.clone())];
            assert_eq!(check(&quotas, &ask("pods", &best_effort, None)).is_err(), counts_best_effort, "{spec}");
            assert_eq!(check(&quotas, &ask("pods", &other, None)).is_err(), counts_other, "{spec}");
        }
        let config_map = ask("configmaps", &json!({}), None);
        let scoped = quota(json!({"scopes": ["BestEffort"]}), json!({"configmaps": "0"}), json!({"configmaps": "0"}));
        assert!(check(&[scoped], &config_map).unwrap().is_empty(), "no scope is about them");
    }

    #[test]
    fn an_update_is_charged_with_what_it_adds() {
        let service = |kind: &str| json!({"spec": {"type": kind, "ports": [{"port": 1}, {"port": 2}]}});
        let hard = json!({"services": "1", "services.nodeports": "2", "services.loadbalancers": "0"});
        let quotas = [quota(
            json!({}),
            hard.clone(),
            json!({"services": "1", "services.nodeports": "0", "services.loadbalancers": "0"}),
        )];
        let used = check(&quotas, &ask("services", &service("NodePort"), Some(&service("ClusterIP")))).unwrap();
        assert_eq!(print(&used[0].1), "services=1,services.loadbalancers=0,services.nodeports=2");
        let same = check(&quotas, &ask("services", &service("ClusterIP"), Some(&service("NodePort")))).unwrap();
        assert!(same.is_empty(), "nothing is given back here");
        let balanced = ask("services", &service("LoadBalancer"), Some(&service("ClusterIP")));
        assert!(check(&quotas, &balanced).unwrap_err().contains("requested: services.loadbalancers=1"));
    }

    #[test]
    fn claims_count_by_class_and_resources_of_others_by_request() {
        let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}});
        let usage = facts("persistentvolumeclaims", &claim).usage;
        assert_eq!(
            print(&usage),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
        );
        let pods = Evaluator::of("", "pods").unwrap();
        let device = pod(json!({"requests": {"example.com/gpu": "2", "hugepages-2Mi": "4Mi"}}));
        let usage = facts("pods", &device).usage;
        assert_eq!(
            print(&usage),
            "count/pods=1,hugepages-2Mi=4Mi,pods=1,requests.example.com/gpu=2,requests.hugepages-2Mi=4Mi"
        );
        assert!(usage.keys().all(|name| pods.covers(name)));
        assert!(!pods.covers("requests.storage") && !pods.covers("gold.storageclass.storage.k8s.io/requests.storage"));
        let mut through = device;
        through["status"] = json!({"phase": "Succeeded"});
        assert_eq!(print(&facts("pods", &through).usage), "count/pods=1");
        assert!(Evaluator::of("", "events").is_none());
        assert!(Evaluator::of("apps", "replicasets").unwrap().covers("count/replicasets.apps"));
    }
}
