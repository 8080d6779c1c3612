//! What a conversion webhook is asked, and what is made of its answer. The call itself is the API server's.

use serde_json::{Value, json};

use crate::{failure::FieldError, fields::Fields, meta, path::Path};

/// Versions of `ConversionReview` that are spoken.
pub const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// The review's version and the review: the first version that the webhook takes and we speak.
pub fn review(
    accepted: &[String],
    uid: &str,
    desired_api_version: &str,
    objects: &[Value],
) -> Result<(String, Value), String> {
    let version = accepted.iter().find(|version| REVIEW_VERSIONS.contains(&version.as_str()));
    let version = version.ok_or("no supported conversion review versions")?.clone();
    let review = json!({
        "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": desired_api_version, "objects": objects},
    });
    Ok((version, review))
}

/// The converted objects, each checked against its original and with the original's metadata but for labels and
/// annotations. The error is what follows `conversion webhook for <kind> `.
pub fn converted(
    answer: &Value,
    version: &str,
    uid: &str,
    desired_api_version: &str,
    originals: &[Value],
) -> Result<Vec<Value>, String> {
    let objects = objects_of(answer, version, uid).map_err(|why| format!("failed: {why}"))?;
    if objects.len() != originals.len() {
        return Err(format!("returned {} objects, expected {}", objects.len(), originals.len()));
    }
    let pairs = objects.iter().zip(originals).enumerate();
    pairs
        .map(|(index, (object, original))| {
            let bad = |why: String| format!("returned invalid converted object at index {index}: {why}");
            let found = object.text("apiVersion");
            if found != desired_api_version {
                return Err(bad(format!("invalid groupVersion (expected {desired_api_version}, received {found})")));
            }
            let (expected, found) = (original.text("kind"), object.text("kind"));
            if expected != found {
                return Err(bad(format!("invalid kind (expected {expected}, received {found})")));
            }
            same_identity(original, object).map_err(bad)?;
            with_metadata_of(original, object)
                .map_err(|why| format!("returned invalid metadata in object at index {index}: {why}"))
        })
        .collect()
}

fn objects_of<'a>(answer: &'a Value, version: &str, uid: &str) -> Result<&'a [Value], String> {
    let response = answer.at("response");
    if version == "v1" {
        let kind = format!("{}, Kind={}", answer.text("apiVersion"), answer.text("kind"));
        if kind != "apiextensions.k8s.io/v1, Kind=ConversionReview" {
            return Err(format!(
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {kind}"
            ));
        }
    }
    let response = response.ok_or("no response provided")?;
    if version == "v1" && response.text("uid") != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.text("uid")));
    }
    let result = response.part("result");
    if result.text("status") != "Success" {
        return Err(match result.text("message") {
            "" => format!("response.result.status was '{}', not 'Success'", result.text("status")),
            message => message.to_owned(),
        });
    }
    Ok(response.list("convertedObjects"))
}

fn same_identity(original: &Value, object: &Value) -> Result<(), String> {
    let (before, after) = (original.part("metadata"), object.part("metadata"));
    for (field, shown) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (e, a) = (before.text(field), after.text(field));
        if e != a {
            return Err(format!("must have the same {shown}: {e} != {a}"));
        }
    }
    Ok(())
}

fn with_metadata_of(original: &Value, object: &Value) -> Result<Value, String> {
    let Some(answered) = object.get("metadata") else { return Err("missing metadata in converted object".to_owned()) };
    if !answered.is_object() {
        return Err("invalid metadata in converted object".to_owned());
    }
    let mut metadata = original.part("metadata").clone();
    for field in ["labels", "annotations"] {
        let Some(value) = answered.at(field) else {
            metadata.unset(field);
            continue;
        };
        let Some(map) = value.as_object() else {
            return Err(format!("invalid metadata.{field} in converted object"));
        };
        if let Some((key, _)) = map.iter().find(|(_, value)| !value.is_string()) {
            return Err(format!("metadata.{field}[{key}] must be a string in converted object"));
        }
        if metadata.at(field) != Some(value) {
            let mut errors: Vec<FieldError> = Vec::new();
            let root = Path::Root;
            let path = root.field("metadata");
            if field == "labels" {
                meta::labels(Some(map), &path.field("labels"), &mut errors);
            } else {
                meta::annotations(Some(map), &path.field("annotation"), &mut errors);
            }
            if let Some(error) = errors.first() {
                return Err(error.to_string());
            }
        }
        metadata.set(field, value.clone());
    }
    let mut object = object.clone();
    object.set("metadata", metadata);
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> Value {
        json!({"kind": "W", "apiVersion": "e.com/v1", "metadata": {"name": "a", "uid": "u", "generation": 4}, "spec": {}})
    }

    fn answer(object: Value) -> Value {
        json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": {
            "uid": "r", "result": {"status": "Success"}, "convertedObjects": [object]}})
    }

    #[test]
    fn metadata_stays_but_for_labels_and_annotations() {
        let back = json!({"kind": "W", "apiVersion": "e.com/v2", "metadata": {"name": "a", "uid": "u", "labels": {"x": "y"}}, "host": 1});
        let got = converted(&answer(back), "v1", "r", "e.com/v2", &[original()]).unwrap();
        assert_eq!(got[0]["metadata"], json!({"name": "a", "uid": "u", "generation": 4, "labels": {"x": "y"}}));
        assert_eq!(got[0]["host"], 1);
    }

    #[test]
    fn answers_that_do_not_fit_are_refused() {
        let with = |metadata: Value, version: &str| json!({"kind": "W", "apiVersion": version, "metadata": metadata});
        for (answer, why) in [
            (answer(with(json!({"name": "b", "uid": "u"}), "e.com/v2")), "must have the same name: a != b"),
            (answer(with(json!({"name": "a", "uid": "u"}), "e.com/v1")), "invalid groupVersion (expected e.com/v2"),
            (
                json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": {"uid": "r",
                "result": {"status": "Failed", "message": "no way"}}}),
                "failed: no way",
            ),
            (json!({}), "failed: expected webhook response"),
        ] {
            let error = converted(&answer, "v1", "r", "e.com/v2", &[original()]).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(review(&["v7".to_owned()], "r", "e.com/v2", &[]).is_err());
    }
}
