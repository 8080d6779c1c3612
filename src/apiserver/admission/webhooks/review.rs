//! `AdmissionReview`: what a hook is asked, and what its answer means.

use std::collections::BTreeMap;

use api::{Failure, Fields, Reason, Row};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use schema::patch::JsonPatch;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admission::{Attributes, kind_of};

/// Codes below this are no refusal.
const REFUSAL_MIN: u16 = 400;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    kind: &'static str,
    api_version: String,
    request: Request<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    uid: &'a str,
    kind: Kind<'a>,
    resource: Resource<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    sub_resource: &'a str,
    request_kind: Kind<'a>,
    request_resource: Resource<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_sub_resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    operation: &'a str,
    user_info: UserInfo<'a>,
    object: Option<&'a Value>,
    old_object: Option<&'a Value>,
    dry_run: bool,
    options: Option<Value>,
}

#[derive(Serialize)]
struct Kind<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

#[derive(Serialize)]
struct Resource<'a> {
    group: &'a str,
    version: &'a str,
    resource: &'a str,
}

#[derive(Serialize)]
struct UserInfo<'a> {
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
}

/// The question as JSON. `row` is the resource in whose version the objects are.
pub fn question(
    version: &str,
    uid: &str,
    attributes: &Attributes<'_>,
    row: &Row,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Bytes, serde_json::Error> {
    let user = attributes.user;
    let subresource = attributes.subresource.unwrap_or_default();
    let review = Review {
        kind: "AdmissionReview",
        api_version: format!("admission.k8s.io/{version}"),
        request: Request {
            uid,
            kind: kind(row, attributes.subresource),
            resource: resource(row),
            sub_resource: subresource,
            request_kind: kind(attributes.row, attributes.subresource),
            request_resource: resource(attributes.row),
            request_sub_resource: subresource,
            name: attributes.name,
            namespace: attributes.review_namespace(),
            operation: attributes.operation.as_str(),
            user_info: UserInfo { username: &user.name, uid: &user.uid, groups: &user.groups, extra: &user.extra },
            object,
            old_object: old,
            dry_run: attributes.dry_run,
            options: attributes.options(),
        },
    };
    serde_json::to_vec(&review).map(Bytes::from)
}

fn kind<'a>(row: &'a Row, subresource: Option<&str>) -> Kind<'a> {
    let [group, version, kind] = kind_of(row, subresource);
    Kind { group, version, kind }
}

fn resource(row: &Row) -> Resource<'_> {
    Resource { group: &row.resource.group, version: &row.resource.version, resource: &row.resource.plural }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answered {
    kind: Option<String>,
    api_version: Option<String>,
    response: Option<Response>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: Option<String>,
    allowed: Option<bool>,
    status: Option<Value>,
    patch: Option<String>,
    patch_type: Option<String>,
    audit_annotations: Option<BTreeMap<String, String>>,
    warnings: Option<Vec<String>>,
}

/// An answer that makes sense.
#[derive(Debug, Default)]
pub struct Verdict {
    pub allowed: bool,
    /// The hook's `Status` for a refusal.
    pub status: Option<Value>,
    pub patch: Option<Patch>,
    pub annotations: BTreeMap<String, String>,
    pub warnings: Vec<String>,
}

#[derive(Debug)]
pub struct Patch {
    pub operations: JsonPatch,
    pub text: Value,
}

/// An answer that makes none: where it was found to be so, in upstream's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Senseless {
    #[error("failed to call webhook: {0}")]
    Undecodable(String),
    #[error("received invalid webhook response: {0}")]
    Invalid(String),
    #[error("received undecodable patch in webhook response: {0}")]
    Patch(String),
    #[error("unsupported patch type {0:?}")]
    PatchType(String),
}

/// Reads an answer to the question `uid`.
pub fn verdict(version: &str, uid: &str, mutating: bool, body: &[u8]) -> Result<Verdict, Senseless> {
    let answered: Answered = serde_json::from_slice(body).map_err(|error| Senseless::Undecodable(error.to_string()))?;
    let invalid = |why: String| Err(Senseless::Invalid(why));
    let Some(response) = answered.response else { return invalid("webhook response was absent".to_owned()) };
    let given = response.patch.unwrap_or_default();
    let patch_bytes = STANDARD
        .decode(given.as_bytes())
        .map_err(|error| Senseless::Undecodable(format!("response.patch is not base64: {error}")))?;
    let mut patch_type = response.patch_type;
    if version == "v1" {
        let answered_uid = response.uid.unwrap_or_default();
        if answered_uid != uid {
            return invalid(format!("expected response.uid={uid:?}, got {answered_uid:?}"));
        }
        let (api_version, kind) = (answered.api_version.unwrap_or_default(), answered.kind.unwrap_or_default());
        if api_version != "admission.k8s.io/v1" || kind != "AdmissionReview" {
            return invalid(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {api_version}, Kind={kind}"
            ));
        }
        match (mutating, patch_bytes.is_empty(), patch_type.as_deref()) {
            (true, false, None) => {
                return invalid("webhook returned response.patch but not response.patchType".to_owned());
            }
            (true, true, Some(_)) => {
                return invalid("webhook returned response.patchType but not response.patch".to_owned());
            }
            (true, false, Some("")) => {
                return invalid("webhook returned invalid response.patchType of \"\"".to_owned());
            }
            (false, false, _) => return invalid("validating webhook may not return response.patch".to_owned()),
            (false, _, Some(_)) => return invalid("validating webhook may not return response.patchType".to_owned()),
            _ => {}
        }
    } else {
        // Of the beta none of this was asked, and patches were of one type.
        patch_type = Some("JSONPatch".to_owned());
    }
    let allowed = response.allowed.unwrap_or_default();
    let patch = if mutating && allowed && !patch_bytes.is_empty() {
        let undecodable = |error: &dyn std::fmt::Display| Senseless::Patch(error.to_string());
        let text: Value = serde_json::from_slice(&patch_bytes).map_err(|error| undecodable(&error))?;
        let operations = JsonPatch::parse(&patch_bytes).map_err(|error| undecodable(&error))?;
        let empty = text.as_array().is_some_and(Vec::is_empty);
        let patch_type = patch_type.unwrap_or_default();
        if !empty && patch_type != "JSONPatch" {
            return Err(Senseless::PatchType(patch_type));
        }
        (!empty).then_some(Patch { operations, text })
    } else {
        None
    };
    Ok(Verdict {
        allowed,
        status: response.status,
        patch,
        annotations: response.audit_annotations.unwrap_or_default(),
        warnings: response.warnings.unwrap_or_default(),
    })
}

/// What the client gets when the hook refuses: the hook's own `Status`, made into a failure if it is none.
pub fn refusal(hook: &str, status: Option<&Value>) -> Failure {
    let denied = format!("admission webhook {hook:?} denied the request");
    let empty = Value::Null;
    let status = status.unwrap_or(&empty);
    let code = status.int("code").and_then(|code| u16::try_from(code).ok()).unwrap_or_default().max(REFUSAL_MIN);
    let (message, reason) = (status.text("message"), status.text("reason"));
    let message = match (message, reason) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let known = serde_json::from_value::<Reason>(status.part("reason").clone());
    Failure {
        code,
        reason: known.unwrap_or(Reason::Unknown),
        message,
        details: status.at("details").and_then(|details| serde_json::from_value(details.clone()).ok()),
        continue_token: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(mutating: bool, response: Value) -> Result<Verdict, Senseless> {
        let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        verdict("v1", "1", mutating, review.to_string().as_bytes())
    }

    fn why(mutating: bool, response: Value) -> String {
        judge(mutating, response).unwrap_err().to_string()
    }

    #[test]
    fn answers_are_checked_as_upstream_checks_them() {
        let patch = STANDARD.encode(r#"[{"op":"add","path":"/a","value":1}]"#);
        assert!(judge(false, json!({"uid": "1", "allowed": true})).unwrap().allowed);
        assert_eq!(why(false, Value::Null), "received invalid webhook response: webhook response was absent");
        assert_eq!(
            why(true, json!({"uid": "2"})),
            "received invalid webhook response: expected response.uid=\"1\", got \"2\""
        );
        for (mutating, response, expected) in [
            (true, json!({"patch": patch}), "webhook returned response.patch but not response.patchType"),
            (true, json!({"patchType": "JSONPatch"}), "webhook returned response.patchType but not response.patch"),
            (false, json!({"patch": patch}), "validating webhook may not return response.patch"),
            (false, json!({"patchType": "JSONPatch"}), "validating webhook may not return response.patchType"),
        ] {
            let mut response = response;
            response["uid"] = "1".into();
            assert_eq!(why(mutating, response), format!("received invalid webhook response: {expected}"));
        }
        let other = json!({"uid": "1", "allowed": true, "patch": patch, "patchType": "Merge"});
        assert_eq!(why(true, other), "unsupported patch type \"Merge\"");
        let broken = json!({"uid": "1", "allowed": true, "patch": STANDARD.encode("{"), "patchType": "JSONPatch"});
        assert!(why(true, broken).starts_with("received undecodable patch in webhook response: "));
        let good = json!({"uid": "1", "allowed": true, "patch": patch, "patchType": "JSONPatch", "warnings": ["w"]});
        let good = judge(true, good).unwrap();
        assert!(good.patch.is_some() && good.warnings == ["w"]);
        let wrong = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1",
            "response": {"uid": "1", "allowed": true}});
        let wrong = verdict("v1", "1", false, wrong.to_string().as_bytes()).unwrap_err().to_string();
        assert_eq!(
            wrong,
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, \
             Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview"
        );
    }

    #[test]
    fn the_beta_was_less_strict() {
        let patch = STANDARD.encode(r#"[{"op":"remove","path":"/a"}]"#);
        let review = json!({"response": {"allowed": true, "patch": patch}}).to_string();
        assert!(verdict("v1beta1", "1", true, review.as_bytes()).unwrap().patch.is_some());
    }

    #[test]
    fn a_refusal_says_whose_it_is() {
        let refused = refusal("a.b.c", None);
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (400, "admission webhook \"a.b.c\" denied the request without explanation")
        );
        let refused = refusal("a.b.c", Some(&json!({"code": 403, "reason": "Forbidden", "message": "no"})));
        assert_eq!((refused.code, refused.reason), (403, Reason::Forbidden));
        assert_eq!(refused.message, "admission webhook \"a.b.c\" denied the request: no");
        let refused = refusal("a.b.c", Some(&json!({"code": 200, "reason": "Mine"})));
        assert_eq!((refused.code, refused.reason), (400, Reason::Unknown));
        assert_eq!(refused.message, "admission webhook \"a.b.c\" denied the request: Mine");
    }
}
