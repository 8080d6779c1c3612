//! Workloads: apps, batch, autoscaling, policy.

use super::{Built, namespaced};
use crate::{
    defaults,
    meta::{Generation, NameRule},
    selector::SelectableField as Field,
    strategy::{convert, kinds},
    validation,
};

pub(super) fn add(rows: &mut Vec<Built>) {
    let apps = |plural, kind| namespaced("apps", "v1", plural, kind);
    rows.extend([
        apps("controllerrevisions", "ControllerRevision")
            .validate(validation::apps::controller_revision)
            .validate_update(validation::apps::controller_revision_update),
        apps("daemonsets", "DaemonSet")
            .prepare_create(kinds::daemon_set_create)
            .prepare_update(kinds::daemon_set_update)
            .validate(validation::apps::daemon_set)
            .validate_update(validation::apps::daemon_set_update)
            .default(defaults::apps::daemon_set)
            .short(&["ds"])
            .category("all")
            .status()
            .generation(),
        apps("deployments", "Deployment")
            .prepare_update(kinds::workload_update)
            .validate(validation::apps::deployment)
            .validate_update(validation::apps::deployment_update)
            .default(defaults::apps::deployment)
            .short(&["deploy"])
            .category("all")
            .scale()
            .status()
            .counts(Generation::SpecAndAnnotations),
        apps("replicasets", "ReplicaSet")
            .prepare_update(kinds::workload_update)
            .validate(validation::apps::replica_set)
            .validate_update(validation::apps::replica_set_update)
            .default(defaults::apps::replica_set)
            .short(&["rs"])
            .category("all")
            .scale()
            .status()
            .generation(),
        apps("statefulsets", "StatefulSet")
            .prepare_update(kinds::workload_update)
            .validate(validation::apps::stateful_set)
            .validate_update(validation::apps::stateful_set_update)
            .default(defaults::apps::stateful_set)
            .short(&["sts"])
            .category("all")
            .scale()
            .status()
            .generation()
            .names(NameRule::Label),
        namespaced("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .validate(validation::autoscaling::autoscaler)
            .default(defaults::apps::autoscaler)
            .short(&["hpa"])
            .category("all")
            .status(),
        namespaced("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .validate(validation::autoscaling::autoscaler)
            .default(defaults::apps::autoscaler_v1)
            .short(&["hpa"])
            .category("all")
            .status()
            .stored_as("autoscaling", "v2", "horizontalpodautoscalers")
            .convert(convert::autoscaler_to_v2, convert::autoscaler_from_v2),
        namespaced("batch", "v1", "cronjobs", "CronJob")
            .validate(validation::batch::cron_job)
            .default(defaults::apps::cron_job)
            .short(&["cj"])
            .category("all")
            .status()
            .generation()
            .names(NameRule::CronJob),
        namespaced("batch", "v1", "jobs", "Job")
            .prepare_create(kinds::job_create)
            .validate(validation::batch::job)
            .validate_update(validation::batch::job_update)
            .default(defaults::apps::job)
            .category("all")
            .status()
            .generation()
            .select(&[Field::at("status.successful", "status.succeeded", "0")]),
        namespaced("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
            .validate(validation::autoscaling::disruption_budget)
            .short(&["pdb"])
            .status()
            .generation()
            .conditional(),
    ]);
}
