//! The subresource `scale`: the number of replicas of whatever has one.

use api::custom::Scale;
use api::{Call, Failure, Fields, LabelSelector, PatchKind, Row, Verb};
use serde_json::{Value, json};

use super::typed::{self, Strictness};
use super::{Answered, Outcome, Request, update};

const SCALE: [&str; 3] = ["autoscaling", "v1", "Scale"];

pub async fn scale(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let name = request.name()?.to_owned();
    if request.call.verb == Verb::Get {
        let stored = request.read(&name).await?;
        let object = super::object(request.server, &request.row, &stored).await?;
        return Ok(Outcome::value(200, view(&request.row, &object)?));
    }
    let body = request.call.body.take().ok_or_else(|| Failure::bad_request("the body is empty"))?;
    let strictness = Strictness::parse(request.call.options.field_validation.as_deref())?;
    let kind = request.call.options.patch.filter(|_| request.call.verb == Verb::Patch);
    let (server, row) = (request.server, request.row.clone());
    let of = row.clone();
    let compute = move |old: &Value| {
        let before = before(&of, old)?;
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
        put(&of, &mut object, &wanted)?;
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
    let object = super::object(server, &row, stored).await?;
    Ok(Outcome { body: Answered::Value(view(&row, &object)?), ..outcome })
}

/// Where a custom resource has its numbers.
fn custom(row: &Row) -> Option<&Scale> {
    row.custom.as_ref()?.compiled()?.scale.as_ref()
}

fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    Scale::parts(path).into_iter().try_fold(object, |value, name| value.get(name))
}

fn set(object: &mut Value, path: &str, replicas: i64) -> Result<(), Failure> {
    let mut parts = Scale::parts(path);
    let Some(last) = parts.pop() else { return Ok(()) };
    let mut place = object;
    for part in parts {
        place = place.object(part).ok_or_else(|| Failure::internal(format!("{path} does not lead to a number")))?;
    }
    place.set(last, replicas);
    Ok(())
}

/// The scale that a change begins with: without replicas where the object has none.
pub fn before(row: &Row, object: &Value) -> Result<Value, Failure> {
    let Some(scale) = custom(row) else { return view(row, object) };
    let mut shown = shown(object, scale);
    if at(object, &scale.spec_replicas_path).is_none()
        && let Some(spec) = shown.object("spec")
    {
        spec.unset("replicas");
    }
    Ok(shown)
}

/// A custom resource as a Scale.
fn shown(object: &Value, scale: &Scale) -> Value {
    let replicas = |path: &str| at(object, path).and_then(Value::as_i64).unwrap_or_default();
    let mut status = json!({"replicas": replicas(&scale.status_replicas_path)});
    if let Some(selector) = scale.label_selector_path.as_deref().and_then(|path| at(object, path)?.as_str())
        && !selector.is_empty()
    {
        status.set("selector", selector);
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": identity(object),
        "spec": {"replicas": replicas(&scale.spec_replicas_path)}, "status": status,
    })
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
pub fn put(row: &Row, object: &mut Value, wanted: &Value) -> Result<(), Failure> {
    let replicas = wanted.part("spec").int("replicas");
    match (custom(row), replicas) {
        (None, replicas) => {
            if let Some(spec) = object.object("spec") {
                spec.set("replicas", replicas.unwrap_or_default());
            }
            Ok(())
        }
        (Some(scale), Some(replicas)) => set(object, &scale.spec_replicas_path, replicas),
        (Some(scale), None) => {
            let why = format!("the spec replicas field {:?} cannot be empty", scale.spec_replicas_path);
            Err(Failure::bad_request(why))
        }
    }
}

/// The object as a Scale.
fn view(row: &Row, object: &Value) -> Result<Value, Failure> {
    if let Some(scale) = custom(row) {
        if at(object, &scale.spec_replicas_path).is_none() {
            let why = format!("the spec replicas field {:?} does not exist", scale.spec_replicas_path);
            return Err(Failure::internal(why));
        }
        return Ok(shown(object, scale));
    }
    let (spec, status) = (object.part("spec"), object.part("status"));
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
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": identity(object),
        "spec": {"replicas": spec.int("replicas").unwrap_or_default()}, "status": shown,
    }))
}

/// What a Scale shows of the object's metadata.
fn identity(object: &Value) -> Value {
    let mut kept = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.part("metadata").at(field) {
            kept.set(field, value.clone());
        }
    }
    kept
}
