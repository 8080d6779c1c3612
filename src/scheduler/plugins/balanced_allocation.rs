//! Prefers nodes whose CPU and memory fill up evenly (`NodeResourcesBalancedAllocation`).

use super::{SCORE_MAX, Score};
use crate::node::{NodeInfo, PodInfo};

pub struct BalancedAllocation;

impl Score for BalancedAllocation {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: usize) -> i64 {
        let fraction = |asked: i64, used: i64, has: i64| {
            if has <= 0 { 1.0 } else { ((asked + used) as f64 / has as f64).min(1.0) }
        };
        let (asked, used, has) = (&pod.requests, &node.requested, &node.allocatable);
        let cpu = fraction(asked.milli_cpu, used.milli_cpu, has.milli_cpu);
        let memory = fraction(asked.memory_bytes, used.memory_bytes, has.memory_bytes);
        // The standard deviation of two numbers is half their distance.
        let deviation = (cpu - memory).abs() / 2.0;
        ((1.0 - deviation) * SCORE_MAX as f64) as i64
    }
}
