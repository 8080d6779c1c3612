//! One decision: which node for this pod. Pure.

use std::collections::BTreeMap;

use rand::{Rng, RngExt};

use crate::node::{NodeInfo, PodInfo};
use crate::plugins::{Filter, Score};

pub struct Plugins {
    pub filters: Vec<Box<dyn Filter>>,
    pub scores: Vec<Box<dyn Score>>,
}

/// Why no node will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes each reason turned away.
    pub reasons: BTreeMap<String, usize>,
    pub nodes: usize,
    /// The filters that turned a node away: what helps them helps the pod.
    pub filters: Vec<&'static str>,
}

impl std::fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

/// The name of the best node; of equally good ones, any.
pub fn decide<'a>(
    plugins: &Plugins,
    pod: &PodInfo,
    nodes: impl Iterator<Item = &'a NodeInfo>,
    rng: &mut impl Rng,
) -> Result<String, Unschedulable> {
    let mut refused = Unschedulable::default();
    let mut feasible: Vec<&NodeInfo> = Vec::new();
    for node in nodes.filter(|node| node.node.is_some()) {
        refused.nodes += 1;
        let refusal = plugins
            .filters
            .iter()
            .find_map(|filter| filter.filter(pod, node).err().map(|reason| (filter.name(), reason)));
        match refusal {
            None => feasible.push(node),
            Some((filter, reason)) => {
                *refused.reasons.entry(reason).or_default() += 1;
                if !refused.filters.contains(&filter) {
                    refused.filters.push(filter);
                }
            }
        }
    }
    match feasible.as_slice() {
        [] => Err(refused),
        [only] => Ok(only.name.clone()),
        several => Ok(best(plugins, pod, several, rng)),
    }
}

fn best(plugins: &Plugins, pod: &PodInfo, nodes: &[&NodeInfo], rng: &mut impl Rng) -> String {
    let mut totals = vec![0_i64; nodes.len()];
    for plugin in &plugins.scores {
        let mut scores: Vec<i64> = nodes.iter().map(|node| plugin.score(pod, node, nodes.len())).collect();
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * plugin.weight();
        }
    }
    let highest = totals.iter().copied().max().unwrap_or(0);
    let winners: Vec<&NodeInfo> =
        nodes.iter().zip(&totals).filter(|(_, total)| **total == highest).map(|(node, _)| *node).collect();
    let chosen = if winners.len() > 1 { rng.random_range(0..winners.len()) } else { 0 };
    winners.get(chosen).map(|node| node.name.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn node(name: &str, over: Value) -> NodeInfo {
        let mut node = json!({
            "metadata": {"name": name, "labels": {"disk": name}},
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}},
        });
        for (key, value) in over.as_object().unwrap() {
            node[key] = value.clone();
        }
        let mut info = NodeInfo::new(name);
        info.set_node(Some(Arc::new(serde_json::from_value(node).unwrap())));
        info
    }

    fn pod(spec: Value) -> PodInfo {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}]);
        }
        let pod = json!({"metadata": {"name": "p", "uid": "p"}, "spec": spec});
        PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn choose(pod: &PodInfo, nodes: &[NodeInfo]) -> Result<String, String> {
        let plugins = Plugins { filters: plugins::filters(), scores: plugins::scores() };
        decide(&plugins, pod, nodes.iter(), &mut SmallRng::seed_from_u64(1)).map_err(|why| why.to_string())
    }

    #[test]
    fn reasons_are_counted_as_upstream_words_them() {
        let tainted = json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}});
        let cordoned = json!({"spec": {"unschedulable": true}});
        let mut full = node("c", json!({}));
        full.add(Arc::new(pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1500m"}}}]}))));
        let nodes = [node("a", tainted.clone()), node("b", cordoned), full, node("d", tainted)];
        assert_eq!(
            choose(&pod(json!({})), &nodes),
            Err("0/4 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable, \
                 2 node(s) had untolerated taint {gpu: yes}."
                .to_owned())
        );
        assert_eq!(choose(&pod(json!({})), &[]), Err("no nodes available to schedule pods".to_owned()));
    }

    #[test]
    fn the_emptier_node_wins() {
        let mut busy = node("busy", json!({}));
        busy.add(Arc::new(pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}]}))));
        assert_eq!(choose(&pod(json!({})), &[busy, node("calm", json!({}))]), Ok("calm".to_owned()));
    }

    #[test]
    fn selectors_tolerations_and_preferences() {
        let nodes = || [node("a", json!({})), node("b", json!({}))];
        assert_eq!(choose(&pod(json!({"nodeSelector": {"disk": "b"}})), &nodes()), Ok("b".to_owned()));
        let prefer = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["b"]}]}}]}}});
        assert_eq!(choose(&pod(prefer), &nodes()), Ok("b".to_owned()));
        let tainted = [node("a", json!({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}))];
        assert!(choose(&pod(json!({})), &tainted).is_err());
        let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
        assert_eq!(choose(&pod(tolerant), &tainted), Ok("a".to_owned()));
    }

    #[test]
    fn ports_of_the_node_are_had_once() {
        let wants = json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        let mut taken = node("a", json!({}));
        let other = json!({"metadata": {"uid": "other"}, "spec": wants});
        taken.add(Arc::new(PodInfo::new(Arc::new(serde_json::from_value(other).unwrap()))));
        assert_eq!(choose(&pod(wants), &[taken, node("b", json!({}))]), Ok("b".to_owned()));
    }
}
