//! Workloads: apps, batch, autoscaling, policy.

use super::{Built, namespaced};
use crate::{
    defaults,
    meta::{Generation, NameRule},
    print,
    selector::SelectableField as Field,
    strategy::{convert, kinds, retired, warnings},
    validation,
};

pub(super) fn add(rows: &mut Vec<Built>) {
    let apps = |plural, kind| namespaced("apps", "v1", plural, kind);
    rows.extend([
        apps("controllerrevisions", "ControllerRevision")
            .show(print::REVISIONS, print::revision)
            .validate(validation::apps::controller_revision)
            .validate_update(validation::apps::controller_revision_update),
        apps("daemonsets", "DaemonSet")
            .warn(warnings::template)
            .show(print::DAEMON_SETS, print::daemon_set)
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
            .warn(warnings::template)
            .show(print::DEPLOYMENTS, print::deployment)
            .prepare_update(kinds::deployment_update)
            .validate(validation::apps::deployment)
            .validate_update(validation::apps::deployment_update)
            .default(defaults::apps::deployment)
            .short(&["deploy"])
            .category("all")
            .scale()
            .status()
            .counts(Generation::SpecAndAnnotations),
        apps("replicasets", "ReplicaSet")
            .warn(warnings::template)
            .show(print::REPLICA_SETS, print::replica_set)
            .validate(validation::apps::replica_set)
            .validate_update(validation::apps::replica_set_update)
            .default(defaults::apps::replica_set)
            .short(&["rs"])
            .category("all")
            .scale()
            .status()
            .generation(),
        apps("statefulsets", "StatefulSet")
            .warn(warnings::template)
            .show(print::STATEFUL_SETS, print::stateful_set)
            .prepare_create(retired::stateful_set_create)
            .prepare_update(retired::stateful_set_update)
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
            .show(print::AUTOSCALERS, print::autoscaler)
            .validate(validation::autoscaling::autoscaler)
            .validate_update(validation::autoscaling::autoscaler_update)
            .default(defaults::apps::autoscaler)
            .short(&["hpa"])
            .category("all")
            .status(),
        namespaced("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .show(print::AUTOSCALERS, print::autoscaler_v1)
            .validate(validation::autoscaling::autoscaler)
            .validate_update(validation::autoscaling::autoscaler_update)
            .default(defaults::apps::autoscaler_v1)
            .short(&["hpa"])
            .category("all")
            .status()
            .stored_as("autoscaling", "v2", "horizontalpodautoscalers")
            .convert(convert::autoscaler_to_v2, convert::autoscaler_from_v2),
        namespaced("batch", "v1", "cronjobs", "CronJob")
            .show(print::CRON_JOBS, print::cron_job)
            .warn(warnings::cron_job)
            .validate(validation::batch::cron_job)
            .default(defaults::apps::cron_job)
            .short(&["cj"])
            .category("all")
            .status()
            .generation()
            .names(NameRule::CronJob),
        namespaced("batch", "v1", "jobs", "Job")
            .warn(warnings::job)
            .show(print::JOBS, print::job)
            .prepare_create(kinds::job_create)
            .validate(validation::batch::job)
            .validate_update(validation::batch::job_update)
            .default(defaults::apps::job)
            .category("all")
            .status()
            .generation()
            .select(&[Field::at("status.successful", "status.succeeded", "0")]),
        namespaced("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
            .show(print::DISRUPTION_BUDGETS, print::disruption_budget)
            .validate(validation::autoscaling::disruption_budget)
            .validate_update(validation::autoscaling::disruption_budget_update)
            .short(&["pdb"])
            .status()
            .generation()
            .conditional(),
    ]);
}
