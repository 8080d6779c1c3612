//! Prefers nodes that have the pod's images already.

use super::{SCORE_MAX, Score};
use crate::node::{NodeInfo, PodInfo};

const MIB: i64 = 1024 * 1024;
/// Below this nothing is gained by not pulling.
const MIN_BYTES: i64 = 23 * MIB;
/// Beyond this, for each container, more makes no difference.
const MAX_BYTES_PER_CONTAINER: i64 = 1000 * MIB;

pub struct ImageLocality;

impl Score for ImageLocality {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: usize) -> i64 {
        let Some(spec) = &pod.pod.spec else { return 0 };
        let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let present: i64 = containers().filter_map(|container| node.images.get(container.image.as_deref()?)).sum();
        let count = i64::try_from(containers().count()).unwrap_or(1);
        let max = MAX_BYTES_PER_CONTAINER * count.max(1);
        SCORE_MAX * (present.clamp(MIN_BYTES, max) - MIN_BYTES) / (max - MIN_BYTES)
    }
}
