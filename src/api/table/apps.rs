//! Workloads: apps, batch, autoscaling, policy.

use super::{Built, namespaced};
use crate::{defaults, meta::NameRule, selector::SelectableField as Field};

pub(super) fn add(rows: &mut Vec<Built>) {
    let apps = |plural, kind| namespaced("apps", "v1", plural, kind);
    rows.extend([
        apps("controllerrevisions", "ControllerRevision"),
        apps("daemonsets", "DaemonSet")
            .default(defaults::apps::daemon_set)
            .short(&["ds"])
            .category("all")
            .status()
            .generation(),
        apps("deployments", "Deployment")
            .default(defaults::apps::deployment)
            .short(&["deploy"])
            .category("all")
            .scale()
            .status()
            .generation(),
        apps("replicasets", "ReplicaSet")
            .default(defaults::apps::replica_set)
            .short(&["rs"])
            .category("all")
            .scale()
            .status()
            .generation(),
        apps("statefulsets", "StatefulSet")
            .default(defaults::apps::stateful_set)
            .short(&["sts"])
            .category("all")
            .scale()
            .status()
            .generation(),
        namespaced("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .default(defaults::apps::autoscaler)
            .short(&["hpa"])
            .category("all")
            .status(),
        namespaced("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .default(defaults::apps::autoscaler_v1)
            .short(&["hpa"])
            .category("all")
            .status()
            .stored_as("autoscaling", "v2", "horizontalpodautoscalers"),
        namespaced("batch", "v1", "cronjobs", "CronJob")
            .default(defaults::apps::cron_job)
            .short(&["cj"])
            .category("all")
            .status()
            .generation()
            .names(NameRule::CronJob),
        namespaced("batch", "v1", "jobs", "Job")
            .default(defaults::apps::job)
            .category("all")
            .status()
            .generation()
            .select(&[Field::at("status.successful", "status.succeeded", "0")]),
        namespaced("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
            .short(&["pdb"])
            .status()
            .generation()
            .conditional(),
    ]);
}
