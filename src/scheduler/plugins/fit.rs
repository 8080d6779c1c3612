//! A node must have what a pod asks for (`NodeResourcesFit`); the more is left over the better (`LeastAllocated`).

use super::{Filter, SCORE_MAX, Score};
use crate::node::{NodeInfo, PodInfo};
use crate::queue::Happening;

pub struct Fit;

impl Filter for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), String> {
        let (asked, used, has) = (&pod.requests, &node.requested, &node.allocatable);
        if used.pods + 1 > has.pods {
            return Err("Too many pods".to_owned());
        }
        let lacks = |asked: i64, used: i64, has: i64| asked > 0 && asked > has - used;
        if lacks(asked.milli_cpu, used.milli_cpu, has.milli_cpu) {
            return Err("Insufficient cpu".to_owned());
        }
        if lacks(asked.memory_bytes, used.memory_bytes, has.memory_bytes) {
            return Err("Insufficient memory".to_owned());
        }
        if lacks(asked.storage_bytes, used.storage_bytes, has.storage_bytes) {
            return Err("Insufficient ephemeral-storage".to_owned());
        }
        for (name, asked) in &asked.other {
            let of = |amounts: &std::collections::BTreeMap<String, i64>| amounts.get(name).copied().unwrap_or(0);
            if lacks(*asked, of(&used.other), of(&has.other)) {
                return Err(format!("Insufficient {name}"));
            }
        }
        Ok(())
    }

    fn helped_by(&self, _: &PodInfo, _: &Happening) -> bool {
        true
    }
}

impl Score for Fit {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: usize) -> i64 {
        let (asked, used, has) = (&pod.requests_or_default, &node.requested_or_default, &node.allocatable);
        let left = |asked: i64, used: i64, has: i64| {
            if has <= 0 || asked + used > has { 0 } else { (has - asked - used) * SCORE_MAX / has }
        };
        let cpu = left(asked.milli_cpu, used.milli_cpu, has.milli_cpu);
        let memory = left(asked.memory_bytes, used.memory_bytes, has.memory_bytes);
        (cpu + memory) / 2
    }
}
