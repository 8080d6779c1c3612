//! Workloads: apps, batch, autoscaling, policy.

use super::{Built, namespaced};
use crate::{meta::NameRule, selector::SelectableField as Field, strategy::Functions};

pub(super) fn add(rows: &mut Vec<Built>) {
    let apps = |plural, kind| namespaced("apps", "v1", plural, kind);
    rows.extend([
        apps("controllerrevisions", "ControllerRevision"),
        apps("daemonsets", "DaemonSet")
            .short(&["ds"])
            .category("all")
            .status()
            .generation()
            .with(Functions::WITH_STATUS),
        apps("deployments", "Deployment")
            .short(&["deploy"])
            .category("all")
            .scale()
            .status()
            .generation()
            .with(Functions::WITH_STATUS),
        apps("replicasets", "ReplicaSet")
            .short(&["rs"])
            .category("all")
            .scale()
            .status()
            .generation()
            .with(Functions::WITH_STATUS),
        apps("statefulsets", "StatefulSet")
            .short(&["sts"])
            .category("all")
            .scale()
            .status()
            .generation()
            .with(Functions::WITH_STATUS),
        namespaced("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .short(&["hpa"])
            .category("all")
            .status()
            .with(Functions::WITH_STATUS),
        namespaced("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .short(&["hpa"])
            .category("all")
            .status()
            .stored_as("autoscaling", "v2", "horizontalpodautoscalers")
            .with(Functions::WITH_STATUS),
        namespaced("batch", "v1", "cronjobs", "CronJob")
            .short(&["cj"])
            .category("all")
            .status()
            .generation()
            .names(NameRule::CronJob)
            .with(Functions::WITH_STATUS),
        namespaced("batch", "v1", "jobs", "Job")
            .category("all")
            .status()
            .generation()
            .select(&[Field::at("status.successful", "status.succeeded", "0")])
            .with(Functions::WITH_STATUS),
        namespaced("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
            .short(&["pdb"])
            .status()
            .generation()
            .conditional()
            .with(Functions::WITH_STATUS),
    ]);
}
