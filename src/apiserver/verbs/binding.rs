//! The subresource `binding`: a Pod gets its node.

use api::{Failure, Fields};
use serde_json::{Value, json};

use super::typed::{self, Strictness};
use super::{Outcome, Request, update};

pub async fn bind(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let mut binding = body(&mut request)?;
    request.admit(request.name()?, &mut binding).await?;
    admitted(request, &binding).await
}

/// The Binding that was sent.
pub fn body(request: &mut Request<'_>) -> Result<Value, Failure> {
    let mut binding = request.call.body.take().ok_or_else(|| Failure::bad_request("the body is empty"))?;
    typed::check(&mut binding, ["", "v1", "Binding"], &[], Strictness::Ignore)?;
    Ok(binding)
}

/// Binds the Pod that the request names.
pub async fn admitted(request: Request<'_>, binding: &Value) -> Result<Outcome, Failure> {
    let name = request.name()?.to_owned();
    let target = binding.part("target");
    let kind = target.text("kind");
    if !matches!(kind, "" | "Node") {
        let error = api::FieldError::not_supported("target.kind", &kind.into(), &["Node"]);
        return Err(Failure::invalid("", "Binding", &name, vec![error]));
    }
    let node = target.text("name").to_owned();
    if node.is_empty() {
        let error = api::FieldError::required("target.name", "");
        return Err(Failure::invalid("", "Binding", &name, vec![error]));
    }
    let uid = binding.part("metadata").text("uid").to_owned();
    let extra: Vec<_> = ["annotations", "labels"]
        .into_iter()
        .filter_map(|field| Some((field, binding.part("metadata").map(field)?.clone())))
        .collect();
    let now = api::meta::time(request.now);
    let change = |pod: &mut Value| {
        let conflict = |why: String| Err(Failure::conflict("", "pods/binding", &name, why));
        let found = pod.part("metadata").text("uid");
        if !uid.is_empty() && uid != found {
            return conflict(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"));
        }
        if pod.part("metadata").has("deletionTimestamp") {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        let already = pod.part("spec").text("nodeName");
        if !already.is_empty() {
            return conflict(format!("pod {name} is already assigned to node {already:?}"));
        }
        if !pod.part("spec").list("schedulingGates").is_empty() {
            return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        if let Some(spec) = pod.object("spec") {
            spec.set("nodeName", node.as_str());
        }
        if let Some(metadata) = pod.object("metadata") {
            for (field, pairs) in &extra {
                if let Some(map) = metadata.object(field) {
                    pairs.iter().for_each(|(key, value)| map.set(key, value.clone()));
                }
            }
        }
        if let Some(status) = pod.object("status") {
            scheduled(status, &now);
        }
        Ok(())
    };
    update::directly(&request, &name, &change).await?;
    Ok(Outcome::done())
}

/// The condition `PodScheduled` is true.
fn scheduled(status: &mut Value, now: &str) {
    let mut conditions = status.list("conditions").to_vec();
    let fresh = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    match conditions.iter_mut().find(|condition| condition.text("type") == "PodScheduled") {
        Some(condition) if condition.text("status") == "True" => return,
        Some(condition) => *condition = fresh,
        None => conditions.push(fresh),
    }
    status.set("conditions", conditions);
}
