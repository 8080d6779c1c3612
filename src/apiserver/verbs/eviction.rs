//! The subresource `eviction`: delete a Pod unless a PodDisruptionBudget forbids it now.

use api::{Call, Cause, Failure, Fields, LabelSelector, Row};
use serde_json::Value;

use super::typed::{self, Strictness};
use super::{Outcome, Request, cache_of, decoded, delete, update};

const RETRY_AFTER_SECONDS: u32 = 10;

pub async fn evict(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let name = request.name()?.to_owned();
    let mut eviction = request.call.body.take().ok_or_else(|| Failure::bad_request("the body is empty"))?;
    typed::check(&mut eviction, ["policy", "v1", "Eviction"], &[], Strictness::Ignore)?;
    request.admit(&name, &mut eviction).await?;
    let stored = request.read(&name).await?;
    let pod = decoded(&request.row, &stored)?;
    let options = eviction.at("deleteOptions").cloned();
    request.call.options.dry_run |= options.as_ref().is_some_and(|options| !options.list("dryRun").is_empty());
    if needs_budget(&pod) {
        spend(&request, &name, &pod).await?;
    }
    let call = Call { verb: api::Verb::Delete, subresource: None, body: options, ..request.call };
    delete::admitted(Request { call, ..request }).await?;
    Ok(Outcome::done())
}

/// Pods that do not run, or go anyway, are missed by nobody.
fn needs_budget(pod: &Value) -> bool {
    !matches!(pod.part("status").text("phase"), "Succeeded" | "Failed" | "Pending")
        && !pod.part("metadata").has("deletionTimestamp")
}

/// Takes one disruption from the Pod's budget, if it has one.
async fn spend(request: &Request<'_>, name: &str, pod: &Value) -> Result<(), Failure> {
    let Some(row) = Row::find("policy", "v1", "poddisruptionbudgets").cloned() else { return Ok(()) };
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
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            return Err(Failure::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let budget_name = budget.part("metadata").text("name").to_owned();
    let now = api::meta::time(request.now);
    let change = |budget: &mut Value| {
        let refuse = |message: String| {
            let mut failure = Failure::too_many_requests(
                "Cannot evict pod as it would violate the pod's disruption budget.",
                RETRY_AFTER_SECONDS,
            );
            failure.details_mut().causes.push(Cause {
                reason: "DisruptionBudget".to_owned(),
                message,
                field: String::new(),
            });
            Err(failure)
        };
        let (metadata, status) = (budget.part("metadata"), budget.part("status"));
        if status.int("observedGeneration").unwrap_or_default() < metadata.int("generation").unwrap_or_default() {
            return refuse(format!("The disruption budget {budget_name} is still being processed by the server."));
        }
        let allowed = status.int("disruptionsAllowed").unwrap_or_default();
        if allowed <= 0 {
            let (needed, healthy) = (status.int("desiredHealthy"), status.int("currentHealthy"));
            return refuse(format!(
                "The disruption budget {budget_name} needs {} healthy pods and has {} currently",
                needed.unwrap_or_default(),
                healthy.unwrap_or_default()
            ));
        }
        if let Some(status) = budget.object("status") {
            status.set("disruptionsAllowed", allowed - 1);
            if let Some(disrupted) = status.object("disruptedPods") {
                disrupted.set(name, now.as_str());
            }
        }
        Ok(())
    };
    let mut call = Call::new(api::Verb::Update, row.resource.clone());
    call.namespace = Some(namespace.to_owned());
    call.subresource = Some("status".into());
    call.options.dry_run = request.call.options.dry_run;
    let Request { server, user, now, notes, .. } = *request;
    let budget_request = Request { server, user, row: row.clone(), call, now, notes };
    update::directly(&budget_request, &budget_name, &change).await?;
    Ok(())
}
