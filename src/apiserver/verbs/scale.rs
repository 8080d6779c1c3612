//! The subresource `scale`: the number of replicas of whatever has one.

use api::{Call, Failure, Fields, LabelSelector, PatchKind, Verb};
use serde_json::{Value, json};

use super::typed::{self, Strictness};
use super::{Answered, Outcome, Request, decoded, update};

const SCALE: [&str; 3] = ["autoscaling", "v1", "Scale"];

pub async fn scale(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let name = request.name()?.to_owned();
    if request.call.verb == Verb::Get {
        let stored = request.read(&name).await?;
        return Ok(Outcome::value(200, view(&decoded(&request.row, &stored)?)?));
    }
    let body = request.call.body.take().ok_or_else(|| Failure::bad_request("the body is empty"))?;
    let strictness = Strictness::parse(request.call.options.field_validation.as_deref())?;
    let kind = request.call.options.patch.filter(|_| request.call.verb == Verb::Patch);
    let row = request.row.clone();
    let compute = move |old: &Value| {
        let before = view(old)?;
        let mut wanted = match kind {
            None => body.clone(),
            Some(kind) => patched(before, kind, &body)?,
        };
        typed::check(&mut wanted, SCALE, &[], strictness)?;
        let replicas = wanted.part("spec").int("replicas").unwrap_or_default();
        if replicas < 0 {
            let text = "must be greater than or equal to 0";
            let error = api::FieldError::invalid("spec.replicas", &replicas.into(), text);
            return Err(Failure::invalid("autoscaling", "Scale", wanted.part("metadata").text("name"), vec![error]));
        }
        let mut object = old.clone();
        put(&mut object, &wanted);
        let given = wanted.part("metadata").text("resourceVersion");
        if let Some(metadata) = object.object("metadata").filter(|_| !given.is_empty()) {
            metadata.set("resourceVersion", given);
        }
        Ok(object)
    };
    // Written as an update of the object: the rules for the object hold.
    let call = Call { verb: Verb::Update, ..request.call };
    let outcome = update::compute(Request { call, ..request }, &compute).await?;
    let Answered::Stored(stored) = &outcome.body else { return Ok(outcome) };
    Ok(Outcome { body: Answered::Value(view(&decoded(&row, stored)?)?), ..outcome })
}

fn patched(mut scale: Value, kind: PatchKind, body: &Value) -> Result<Value, Failure> {
    match kind {
        PatchKind::Json => {
            let bytes = serde_json::to_vec(body).map_err(Failure::internal)?;
            let patch =
                schema::patch::JsonPatch::parse(&bytes).map_err(|error| Failure::bad_request(error.to_string()))?;
            patch.apply(&mut scale).map_err(|error| Failure::bad_request(error.to_string()))?;
        }
        PatchKind::Merge | PatchKind::Strategic | PatchKind::Apply => {
            schema::patch::merge(&mut scale, body.clone());
        }
    }
    Ok(scale)
}

/// The object with the replicas that a Scale wants.
pub fn put(object: &mut Value, scale: &Value) {
    if let Some(spec) = object.object("spec") {
        spec.set("replicas", scale.part("spec").int("replicas").unwrap_or_default());
    }
}

/// The object as a Scale.
pub fn view(object: &Value) -> Result<Value, Failure> {
    let (metadata, spec, status) = (object.part("metadata"), object.part("spec"), object.part("status"));
    let mut kept = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.at(field) {
            kept.set(field, value.clone());
        }
    }
    let selector = match spec.at("selector") {
        // ReplicationControllers have a plain map.
        Some(Value::Object(map)) if !map.contains_key("matchLabels") && !map.contains_key("matchExpressions") => {
            let pairs: Vec<(&str, &str)> =
                map.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())).collect();
            LabelSelector::from_labels(pairs)
        }
        selector => LabelSelector::from_value(selector).map_err(Failure::internal)?,
    };
    let mut shown = json!({"replicas": status.int("replicas").unwrap_or_default()});
    if !selector.is_empty() {
        shown.set("selector", selector.to_string());
    }
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": kept,
        "spec": {"replicas": spec.int("replicas").unwrap_or_default()}, "status": shown,
    }))
}
