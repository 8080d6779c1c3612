//! Jobs and CronJobs.

use jiff::tz::TimeZone;
use serde_json::Value;

use super::{Check, job_policies, labels, pod, same};
use crate::cron::{self, Schedule};
use crate::{failure::FieldError, fields::Fields, path::Path};

const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// From here on there are so many indexes that fewer may run or fail at once.
const MANY_COMPLETIONS: i64 = 100_000;
const AT_MANY_COMPLETIONS_MAX: i64 = 10_000;
const MANAGED_BY_BYTES_MAX: usize = 63;

pub fn job(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    job_spec(check, spec, &path);
    match spec.at("selector") {
        None => check.required(&path.field("selector"), ""),
        Some(selector) => labels::selector(check, selector, &path.field("selector")),
    }
    // Nothing is selected by no selector.
    labels::matches_template(check, spec, &path);
}

fn job_spec(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        check.not_negative(spec, path, name);
    }
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        check.required(&path.field("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    check.one_of(spec, path, "completionMode", &["NonIndexed", "Indexed"]);
    if spec.text("completionMode") == "Indexed" {
        if !spec.has("completions") {
            check.required(&path.field("completions"), "when completion mode is Indexed");
        }
        if let Some(parallelism) = spec.int("parallelism").filter(|&count| count > INDEXED_PARALLELISM_MAX) {
            let text =
                format!("must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed");
            check.invalid(&path.field("parallelism"), &parallelism.into(), &text);
        }
        indexes(check, spec, path);
        job_policies::success(check, spec, path);
    } else {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            if let Some(value) = spec.at(name) {
                check.invalid(&path.field(name), value, "requires indexed completion mode");
            }
        }
    }
    job_policies::failure(check, spec, path);
    if let Some(manager) = spec.at("managedBy").and_then(Value::as_str) {
        let path = path.field("managedBy");
        check.domain_prefixed(&path, manager);
        if manager.len() > MANAGED_BY_BYTES_MAX {
            check.errors.push(FieldError::too_long(&path, MANAGED_BY_BYTES_MAX));
        }
    }
    check.one_of(spec, path, "podReplacementPolicy", &["Failed", "TerminatingOrFailed"]);
    if spec.has("podFailurePolicy") && spec.text("podReplacementPolicy") == "TerminatingOrFailed" {
        let supported = &["Failed"];
        check.not_supported(&path.field("podReplacementPolicy"), spec.part("podReplacementPolicy"), supported);
    }
    pod::template(check, spec, path);
    let restart = spec.part("template").part("spec").text("restartPolicy");
    let path = path.field("template");
    let path = path.field("spec");
    let path = path.field("restartPolicy");
    match restart {
        "" | "Always" => check.required(&path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" | "Never" => {
            if spec.has("podFailurePolicy") && restart != "Never" {
                let text = "only \"Never\" is supported when podFailurePolicy is specified";
                check.invalid(&path, &restart.into(), text);
            }
        }
        _ => check.not_supported(&path, &restart.into(), &["OnFailure", "Never"]),
    }
}

/// How many indexes may fail, and how many may run at once where there are very many.
fn indexes(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let completions = spec.int("completions");
    let failed = path.field("maxFailedIndexes");
    if let Some(max) = spec.int("maxFailedIndexes") {
        if completions.is_some_and(|completions| max > completions) {
            check.invalid(&failed, &max.into(), "must be less than or equal to completions");
        }
        if max > FAILED_INDEXES_MAX {
            check.invalid(&failed, &max.into(), &format!("must be less than or equal to {FAILED_INDEXES_MAX}"));
        }
    }
    if completions.is_none_or(|completions| completions <= MANY_COMPLETIONS) || !spec.has("backoffLimitPerIndex") {
        return;
    }
    if !spec.has("maxFailedIndexes") {
        check.required(&failed, &format!("must be specified when completions is above {MANY_COMPLETIONS}"));
    }
    for name in ["parallelism", "maxFailedIndexes"] {
        if let Some(count) = spec.int(name).filter(|&count| count > AT_MANY_COMPLETIONS_MAX) {
            let text = format!(
                "must be less than or equal to {AT_MANY_COMPLETIONS_MAX} when completions are above \
                 {MANY_COMPLETIONS} and used with backoff limit per index"
            );
            check.invalid(&path.field(name), &count.into(), &text);
        }
    }
}

pub fn job_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource == Some("status") {
        return job_status(object, old, errors);
    }
    job(object, errors);
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let (new, before) = (object.part("spec"), old.part("spec"));
    if new.text("completionMode") == "Indexed" {
        let changed = new.int("completions") != before.int("completions");
        if changed && new.int("completions") != new.int("parallelism") {
            let text = "can only be modified in tandem with spec.parallelism";
            check.invalid(&path.field("completions"), new.part("completions"), text);
        }
    } else {
        check.unchanged(new, before, &path, "completions");
    }
    let names =
        ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
    for name in names {
        check.unchanged(new, before, &path, name);
    }
    // A Job that has not begun may still choose where its pods go.
    let suspended = before.flag("suspend") && !old.part("status").has("startTime");
    let alike = if suspended {
        same(&frozen(new.part("template")), &frozen(before.part("template")))
    } else {
        same(new.part("template"), before.part("template"))
    };
    if !alike {
        check.invalid(&path.field("template"), new.part("template"), super::IMMUTABLE);
    }
}

/// What of a template is for good even before its first pod.
fn frozen(template: &Value) -> Value {
    let mut frozen = template.clone();
    if let Some(metadata) = frozen.object("metadata") {
        metadata.unset("annotations");
        metadata.unset("labels");
    }
    if let Some(spec) = frozen.object("spec") {
        for name in ["nodeSelector", "tolerations", "schedulingGates"] {
            spec.unset(name);
        }
        if let Some(affinity) = spec.at_mut("affinity") {
            affinity.unset("nodeAffinity");
        }
        for container in spec.list_mut("containers") {
            container.unset("resources");
        }
    }
    frozen
}

fn job_status(object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("status");
    let status = object.part("status");
    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        check.not_negative(status, &path, name);
    }
    let holds = |object: &Value, kind: &str| {
        let conditions = object.part("status").list("conditions");
        conditions.iter().any(|one| one.text("type") == kind && one.text("status") == "True")
    };
    let conditions = path.field("conditions");
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if holds(old, kind) && !holds(object, kind) {
            let text = format!("cannot disable the terminal {kind}=True condition");
            check.invalid(&conditions, status.part("conditions"), &text);
        }
    }
    if holds(object, "Complete") && holds(object, "Failed") {
        let text = "cannot set Complete=True and Failed=true conditions";
        check.invalid(&conditions, status.part("conditions"), text);
    }
    if status.has("completionTime") && !holds(object, "Complete") {
        let text = "cannot set completionTime when there is no Complete=True condition";
        check.invalid(&path.field("completionTime"), status.part("completionTime"), text);
    }
}

pub fn cron_job(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    let schedule = spec.text("schedule");
    if check.text(spec, &path, "schedule") {
        if schedule.contains("TZ") {
            let text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            check.invalid(&path.field("schedule"), &schedule.into(), text);
        } else if let Err(text) = Schedule::parse(schedule, TimeZone::UTC) {
            check.invalid(&path.field("schedule"), &schedule.into(), &text);
        }
    }
    check.not_negative(spec, &path, "startingDeadlineSeconds");
    if let Some(zone) = spec.at("timeZone") {
        let text = zone.as_str().unwrap_or_default();
        if text.is_empty() {
            check.invalid(&path.field("timeZone"), zone, "timeZone must be nil or non-empty string");
        } else if text.eq_ignore_ascii_case("local") {
            let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
            check.invalid(&path.field("timeZone"), zone, detail);
        } else if let Err(why) = cron::time_zone(text) {
            check.invalid(&path.field("timeZone"), zone, &why);
        }
    }
    check.choice(spec, &path, "concurrencyPolicy", &["Allow", "Forbid", "Replace"]);
    let template = path.field("jobTemplate");
    let job_path = template.field("spec");
    let job = spec.part("jobTemplate").part("spec");
    job_spec(check, job, &job_path);
    if job.flag("manualSelector") {
        check.not_supported(&job_path.field("manualSelector"), &true.into(), &["nil", "false"]);
    }
    for name in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        check.not_negative(spec, &path, name);
    }
}
