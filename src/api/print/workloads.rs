//! Workload controllers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Column, NONE, UNKNOWN, UNSET, age_of, containers, holds, human_duration, labels, name, number, or_else, plain,
    selector, since,
};
use crate::fields::Fields;

const CONTAINERS: Column = Column::string("Containers", "Names of the template's containers.").wide();
const IMAGES: Column = Column::string("Images", "Images of the template's containers.").wide();
const SELECTOR: Column = Column::string("Selector", "Labels of the pods.").wide();

pub(crate) const DEPLOYMENTS: &[Column] = &[
    Column::name(),
    Column::string("Ready", "Ready pods, and how many are wanted."),
    Column::string("Up-to-date", "Pods of the newest template."),
    Column::string("Available", "Pods that have been ready long enough."),
    Column::age(),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.part("spec"), object.part("status"));
    let [names, images] = containers(spec);
    let ready = format!("{}/{}", number(status, "readyReplicas"), number(spec, "replicas"));
    let selector = selector(spec.part("selector"));
    vec![
        name(object),
        ready.into(),
        number(status, "updatedReplicas"),
        number(status, "availableReplicas"),
        since(object, now),
        names,
        images,
        selector,
    ]
}

pub(crate) const REPLICA_SETS: &[Column] = &[
    Column::name(),
    Column::integer("Desired", "How many pods are wanted."),
    Column::integer("Current", "How many pods there are."),
    Column::integer("Ready", "How many pods are ready."),
    Column::age(),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    replicas(object, selector(object.part("spec").part("selector")), now)
}

pub(crate) fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    replicas(object, labels(object.part("spec").part("selector")), now)
}

fn replicas(object: &Value, selector: Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.part("spec"), object.part("status"));
    let [names, images] = containers(spec);
    vec![
        name(object),
        number(spec, "replicas"),
        number(status, "replicas"),
        number(status, "readyReplicas"),
        since(object, now),
        names,
        images,
        selector,
    ]
}

pub(crate) const STATEFUL_SETS: &[Column] = &[
    Column::name(),
    Column::string("Ready", "Ready pods, and how many are wanted."),
    Column::age(),
    CONTAINERS,
    IMAGES,
];

pub(crate) fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.part("spec"), object.part("status"));
    let [names, images] = containers(spec);
    let ready = format!("{}/{}", number(status, "readyReplicas"), number(spec, "replicas"));
    vec![name(object), ready.into(), since(object, now), names, images]
}

pub(crate) const DAEMON_SETS: &[Column] = &[
    Column::name(),
    Column::integer("Desired", "Nodes that should run the pod."),
    Column::integer("Current", "Nodes that should and do run the pod."),
    Column::integer("Ready", "Nodes where the pod is ready."),
    Column::integer("Up-to-date", "Nodes that run the newest template."),
    Column::integer("Available", "Nodes where the pod has been ready long enough."),
    Column::string("Node Selector", "Labels that a node needs."),
    Column::age(),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.part("spec"), object.part("status"));
    let [names, images] = containers(spec);
    let selector = selector(spec.part("selector"));
    vec![
        name(object),
        number(status, "desiredNumberScheduled"),
        number(status, "currentNumberScheduled"),
        number(status, "numberReady"),
        number(status, "updatedNumberScheduled"),
        number(status, "numberAvailable"),
        labels(spec.part("template").part("spec").part("nodeSelector")),
        since(object, now),
        names,
        images,
        selector,
    ]
}

pub(crate) const JOBS: &[Column] = &[
    Column::name(),
    Column::string("Status", "How the job is."),
    Column::string("Completions", "Pods that succeeded, and how many shall."),
    Column::string("Duration", "How long the job has run or ran."),
    Column::age(),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.part("spec"), object.part("status"));
    let succeeded = number(status, "succeeded");
    let parallelism = spec.int("parallelism").unwrap_or_default();
    let completions = match spec.int("completions") {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let time = |name: &str| status.text(name).parse::<Timestamp>().ok();
    let duration = time("startTime").map(|start| {
        let end = time("completionTime").unwrap_or(now);
        human_duration(end.duration_since(start).as_secs())
    });
    let state = if holds(object, "Complete") {
        "Complete"
    } else if holds(object, "Failed") {
        "Failed"
    } else if object.part("metadata").has("deletionTimestamp") {
        "Terminating"
    } else {
        let stages = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
        stages.into_iter().find(|stage| holds(object, stage)).unwrap_or("Running")
    };
    let [names, images] = containers(spec);
    let selector = selector(spec.part("selector"));
    vec![
        name(object),
        state.into(),
        completions.into(),
        duration.unwrap_or_default().into(),
        since(object, now),
        names,
        images,
        selector,
    ]
}

pub(crate) const CRON_JOBS: &[Column] = &[
    Column::name(),
    Column::string("Schedule", "When jobs are made, in cron's form."),
    Column::string("Timezone", "The time zone of the schedule."),
    Column::boolean("Suspend", "Whether no jobs are made for now."),
    Column::integer("Active", "Jobs that run."),
    Column::string("Last Schedule", "Time since a job was last made."),
    Column::age(),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(crate) fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.part("spec"), object.part("status"));
    let last = status.has("lastScheduleTime").then(|| age_of(status, "lastScheduleTime", now));
    let job = spec.part("jobTemplate").part("spec");
    let [names, images] = containers(job);
    let suspend = match spec.get("suspend").and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    };
    vec![
        name(object),
        spec.text("schedule").into(),
        or_else(spec.text("timeZone"), NONE),
        suspend.into(),
        status.list("active").len().into(),
        last.unwrap_or_else(|| NONE.to_owned()).into(),
        since(object, now),
        names,
        images,
        job.at("selector").map_or_else(|| NONE.into(), selector),
    ]
}

pub(crate) const AUTOSCALERS: &[Column] = &[
    Column::name(),
    Column::string("Reference", "What is scaled."),
    Column::string("Targets", "Current values of the metrics, and the wanted ones."),
    Column::string("MinPods", "The least number of pods."),
    Column::string("MaxPods", "The greatest number of pods."),
    Column::integer("Replicas", "How many pods there are."),
    Column::age(),
];

pub(crate) fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.part("spec"), object.part("status"));
    let target = spec.part("scaleTargetRef");
    let min = spec.int("minReplicas").map_or_else(|| UNSET.to_owned(), |min| min.to_string());
    vec![
        name(object),
        format!("{}/{}", target.text("kind"), target.text("name")).into(),
        metrics(spec, status).into(),
        min.into(),
        number(spec, "maxReplicas"),
        number(status, "currentReplicas"),
        since(object, now),
    ]
}

/// Version 1 has one metric, in fields of its own.
pub(crate) fn autoscaler_v1(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut newer = object.clone();
    crate::strategy::convert::autoscaler_to_v2(&mut newer);
    autoscaler(&newer, now)
}

fn metrics(spec: &Value, status: &Value) -> String {
    const METRICS_SHOWN_MAX: usize = 2;
    let metrics = spec.list("metrics");
    if metrics.is_empty() {
        return NONE.to_owned();
    }
    let shown = metrics.iter().enumerate().take(METRICS_SHOWN_MAX).map(|(index, metric)| {
        let (first, rest) = metric.text("type").split_at_checked(1).unwrap_or_default();
        let kind = format!("{}{rest}", first.to_ascii_lowercase());
        let source = metric.part(&kind);
        let target = source.part("target");
        let current =
            status.list("currentMetrics").get(index).map_or(&Value::Null, |one| one.part(&kind).part("current"));
        let resource = matches!(kind.as_str(), "resource" | "containerResource");
        let now = |name: &str| current.at(name).map_or_else(|| UNKNOWN.to_owned(), plain);
        let percent = |value: &Value| value.as_i64().map(|number| format!("{number}%"));
        if resource && !target.has("averageValue") {
            let current = percent(current.part("averageUtilization")).unwrap_or_else(|| UNKNOWN.to_owned());
            let wanted = percent(target.part("averageUtilization")).unwrap_or_else(|| "<auto>".to_owned());
            format!("{}: {current}/{wanted}", source.text("name"))
        } else if resource {
            format!("{}: {}/{}", source.text("name"), now("averageValue"), plain(target.part("averageValue")))
        } else if kind == "pods" {
            format!("{}/{}", now("averageValue"), plain(target.part("averageValue")))
        } else if target.has("averageValue") {
            format!("{}/{} (avg)", now("averageValue"), plain(target.part("averageValue")))
        } else {
            format!("{}/{}", now("value"), plain(target.part("value")))
        }
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match metrics.len().checked_sub(METRICS_SHOWN_MAX) {
        Some(more) if more > 0 => format!("{shown} + {more} more..."),
        _ => shown,
    }
}

pub(crate) const DISRUPTION_BUDGETS: &[Column] = &[
    Column::name(),
    Column::string("Min Available", "How many pods must stay available."),
    Column::string("Max Unavailable", "How many pods may be unavailable."),
    Column::integer("Allowed Disruptions", "How many pods may be evicted now."),
    Column::age(),
];

pub(crate) fn disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let bound = |name: &str| spec.at(name).map_or_else(|| json!("N/A"), |value| plain(value).into());
    vec![
        name(object),
        bound("minAvailable"),
        bound("maxUnavailable"),
        number(object.part("status"), "disruptionsAllowed"),
        since(object, now),
    ]
}

pub(crate) const REVISIONS: &[Column] = &[
    Column::name(),
    Column::string("Controller", "What the revision is of."),
    Column::string("Revision", "Its number."),
    Column::age(),
];

pub(crate) fn revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let owners = object.part("metadata").list("ownerReferences");
    let owner = owners.iter().find(|owner| owner.flag("controller"));
    let controller = owner.map_or_else(
        || NONE.to_owned(),
        |owner| {
            let group = owner.text("apiVersion").split_once('/').map_or("", |(group, _)| group);
            let kind = owner.text("kind").to_lowercase();
            let dot = if group.is_empty() { "" } else { "." };
            format!("{kind}{dot}{group}/{}", owner.text("name"))
        },
    );
    vec![name(object), controller.into(), number(object, "revision"), since(object, now)]
}

pub(crate) const POD_TEMPLATES: &[Column] = &[
    Column::name(),
    Column::string("Containers", "Names of the template's containers."),
    Column::string("Images", "Images of the template's containers."),
    Column::string("Pod Labels", "Labels of the pods."),
];

pub(crate) fn pod_template(object: &Value, _now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object);
    vec![name(object), names, images, labels(object.part("template").part("metadata").part("labels"))]
}
