//! Taints keep pods away that do not tolerate them; of the taints that only prefer it, the fewer the better.

use api::placement;
use k8s_openapi::api::core::v1::Taint;

use super::{Filter, Score, normalize_by_max};
use crate::node::{NodeInfo, PodInfo};
use crate::queue::Happening;

pub struct TaintToleration;

pub fn tolerates(pod: &PodInfo, taint: &Taint) -> bool {
    let spec = pod.pod.spec.as_ref();
    spec.and_then(|spec| spec.tolerations.as_ref())
        .into_iter()
        .flatten()
        .any(|toleration| placement::tolerates(toleration, taint))
}

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), String> {
        let keeps_away = |taint: &&Taint| taint.effect != "PreferNoSchedule" && !tolerates(pod, taint);
        match node.taints().iter().find(keeps_away) {
            None => Ok(()),
            Some(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                Err(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key))
            }
        }
    }

    fn helped_by(&self, _: &PodInfo, happening: &Happening) -> bool {
        matches!(happening, Happening::Node)
    }
}

impl Score for TaintToleration {
    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: usize) -> i64 {
        let intolerable = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !tolerates(pod, taint);
        i64::try_from(node.taints().iter().filter(intolerable).count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_max(scores, true);
    }
}
