//! The subresource `eviction`: delete a Pod unless a PodDisruptionBudget forbids it now.

use std::sync::Arc;

use api::{Call, Cause, Failure, Fields, LabelSelector, Row};
use serde_json::{Value, json};

use super::typed::{self, Strictness};
use super::{Outcome, Request, cache_of, decoded, delete, update};

/// Pods that a budget may have let go and that its controller has not seen go yet (upstream: `MaxDisruptedPodSize`).
const DISRUPTED_PODS_MAX: usize = 2_000;
/// When a budget that is not up to date may be asked again.
const RETRY_AFTER_SECONDS: u32 = 10;
const ATTEMPTS: usize = 20;

/// How a Pod may go.
enum Leave {
    /// As it is now: nobody misses it, and nobody would if it had ended.
    Unmissed,
    /// The budget of this name has no say as long as the Pod is not ready.
    WhileUnready(String),
    /// A disruption was taken from its budget, or it has none.
    Granted,
}

pub async fn evict(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let name = request.name()?.to_owned();
    let mut eviction = request.call.body.take().ok_or_else(|| Failure::bad_request("the body is empty"))?;
    typed::check(&mut eviction, ["policy", "v1", "Eviction"], &[], Strictness::Ignore)?;
    request.admit(&name, &mut eviction).await?;
    let mut options = eviction.at("deleteOptions").cloned().unwrap_or_else(|| json!({}));
    request.call.options.dry_run |= !options.list("dryRun").is_empty();
    // Who names a version wants that one or none.
    let retries = !options.part("preconditions").has("resourceVersion");
    for attempt in 0.. {
        let stored = request.read(&name).await?;
        let leave = leave(&request, &name, &decoded(&request.row, &stored)?).await?;
        match mark(&request, &name, &leave, &options).await {
            Ok(version) => {
                if let Some(preconditions) = options.object("preconditions")
                    && (preconditions.has("resourceVersion") || !matches!(leave, Leave::Granted))
                {
                    preconditions.set("resourceVersion", version);
                }
                break;
            }
            Err(failure) if failure.code == 409 && retries && attempt < ATTEMPTS => match leave {
                Leave::WhileUnready(budget) => return Err(not_up_to_date(&budget)),
                Leave::Unmissed | Leave::Granted => {}
            },
            Err(failure) => return Err(failure),
        }
    }
    let call = Call { verb: api::Verb::Delete, subresource: None, body: Some(options), ..request.call };
    delete::admitted(Request { call, ..request }).await?;
    Ok(Outcome::done())
}

async fn leave(request: &Request<'_>, name: &str, pod: &Value) -> Result<Leave, Failure> {
    let phase = pod.part("status").text("phase");
    if matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.part("metadata").has("deletionTimestamp") {
        return Ok(Leave::Unmissed);
    }
    let Some(row) = Row::find("policy", "v1", "poddisruptionbudgets").cloned() else { return Ok(Leave::Granted) };
    let namespace = request.namespace().unwrap_or_default();
    let mut budgets = Vec::new();
    for stored in cache_of(request.server, &row)?.objects(Some(namespace)) {
        let budget = decoded(&row, &stored)?;
        let selector = LabelSelector::from_value(budget.part("spec").at("selector")).map_err(Failure::internal)?;
        if selector.matches_object(pod) {
            budgets.push(budget);
        }
    }
    let budget = match budgets.as_slice() {
        [] => return Ok(Leave::Granted),
        [budget] => budget,
        _ => {
            return Err(Failure::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let budget_name = budget.part("metadata").text("name").to_owned();
    if !is_ready(pod) {
        let number = |field: &str| budget.part("status").int(field).unwrap_or_default();
        let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
        let always = budget.part("spec").text("unhealthyPodEvictionPolicy") == "AlwaysAllow";
        if always || (healthy >= desired && desired > 0) {
            return Ok(Leave::WhileUnready(budget_name));
        }
    }
    spend(request, name, row, budget_name).await?;
    Ok(Leave::Granted)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.part("status").list("conditions");
    conditions.iter().any(|one| one.text("type") == "Ready" && one.text("status") == "True")
}

/// Says in the Pod's status why it goes, which is what failure policies of Jobs look at (KEP-3329); its version then.
async fn mark(request: &Request<'_>, name: &str, leave: &Leave, options: &Value) -> Result<String, Failure> {
    let now = api::meta::time(request.now);
    let wanted = options.part("preconditions");
    let modified = || Failure::modified(request.group(), request.plural(), name);
    let change = |pod: &mut Value| {
        let metadata = pod.part("metadata");
        let other = |field: &str| wanted.has(field) && wanted.text(field) != metadata.text(field);
        let unready = matches!(leave, Leave::WhileUnready(_));
        let runs = matches!(leave, Leave::Unmissed) && pod.part("status").text("phase") == "Running";
        if other("uid")
            || other("resourceVersion")
            || (unready && is_ready(pod))
            || (runs && !metadata.has("deletionTimestamp"))
        {
            return Err(modified());
        }
        let Some(status) = pod.object("status") else { return Ok(()) };
        let mut conditions = status.list("conditions").to_vec();
        conditions.retain(|one| one.text("type") != "DisruptionTarget");
        conditions.push(json!({
            "type": "DisruptionTarget", "status": "True", "lastTransitionTime": now.as_str(),
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        }));
        status.set("conditions", conditions);
        Ok(())
    };
    let row = request.row.clone();
    let marked = status_of(request, row, request.namespace().unwrap_or_default());
    let stored = update::directly(&marked, name, &change).await?;
    Ok(stored.mod_revision.to_string())
}

/// Takes one disruption from the Pod's budget.
async fn spend(request: &Request<'_>, name: &str, row: Arc<Row>, budget_name: String) -> Result<(), Failure> {
    let now = api::meta::time(request.now);
    let change = |budget: &mut Value| {
        let (metadata, status) = (budget.part("metadata"), budget.part("status"));
        let number = |field: &str| status.int(field).unwrap_or_default();
        if number("observedGeneration") < metadata.int("generation").unwrap_or_default() {
            return Err(not_up_to_date(&budget_name));
        }
        let forbidden = |why: &str| Failure::forbidden("policy", "poddisruptionbudget", &budget_name, why);
        let allowed = number("disruptionsAllowed");
        if allowed < 0 {
            return Err(forbidden("pdb disruptions allowed is negative"));
        }
        if status.part("disruptedPods").as_object().is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
            let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
            return Err(forbidden(why));
        }
        if allowed == 0 {
            return Err(refused(why_not(&budget_name, status), 0));
        }
        if let Some(status) = budget.object("status") {
            status.set("disruptionsAllowed", allowed - 1);
            if allowed == 1 {
                exhausted(status, &now);
            }
            if let Some(disrupted) = status.object("disruptedPods") {
                disrupted.set(name, now.as_str());
            }
        }
        Ok(())
    };
    let namespace = request.namespace().unwrap_or_default();
    update::directly(&status_of(request, row, namespace), &budget_name, &change).await?;
    Ok(())
}

/// The budget's own account of why it lets nobody go.
fn why_not(name: &str, status: &Value) -> String {
    let number = |field: &str| status.int(field).unwrap_or_default();
    let condition = status.list("conditions").iter().find(|one| one.text("type") == "DisruptionAllowed");
    let denies = condition.filter(|one| one.text("status") == "False" && !one.text("message").is_empty());
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    match denies {
        Some(one) if one.text("reason") == "SyncFailed" => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            one.text("message")
        ),
        _ if healthy <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
        }
        Some(one) => format!(
            "The disruption budget {name} does not allow evicting pods currently ({}): {}",
            one.text("reason"),
            one.text("message")
        ),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

/// The last disruption was taken: the condition says so before the budget's controller does.
fn exhausted(status: &mut Value, now: &str) {
    let mut conditions = status.list("conditions").to_vec();
    let before = conditions.iter().position(|one| one.text("type") == "DisruptionAllowed");
    let before = before.map(|at| conditions.remove(at));
    let since = before.as_ref().filter(|one| one.text("status") == "False").map(|one| one.text("lastTransitionTime"));
    let generation = status.int("observedGeneration").unwrap_or_default();
    conditions.push(json!({
        "type": "DisruptionAllowed", "status": "False", "observedGeneration": generation,
        "lastTransitionTime": since.unwrap_or(now), "reason": "InsufficientPods", "message": "",
    }));
    status.set("conditions", conditions);
}

fn not_up_to_date(budget: &str) -> Failure {
    let why = format!("The disruption budget {budget} is still being processed by the server.");
    refused(why, RETRY_AFTER_SECONDS)
}

fn refused(why: String, retry_after_seconds: u32) -> Failure {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut failure = Failure::too_many_requests(message, retry_after_seconds);
    let cause = Cause { reason: "DisruptionBudget".to_owned(), message: why, field: String::new() };
    failure.details_mut().causes.push(cause);
    failure
}

/// A change of the status of an object in the Pod's namespace, for the one who evicts.
fn status_of<'a>(request: &Request<'a>, row: Arc<Row>, namespace: &str) -> Request<'a> {
    let mut call = Call::new(api::Verb::Update, row.resource.clone());
    call.namespace = Some(namespace.to_owned());
    call.subresource = Some("status".into());
    call.options.dry_run = request.call.options.dry_run;
    let Request { server, user, now, notes, .. } = *request;
    Request { server, user, row, call, now, notes }
}
