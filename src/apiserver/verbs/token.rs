//! The subresource `token`: a ServiceAccount's token, for a while and for an audience, bound to a Pod, Secret or Node.

use api::{Failure, FieldError, Fields, Row};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::typed::{self, Strictness};
use super::{Outcome, Request, decoded, key};
use crate::authn::{self, BoundTo, Named, TokenRequest};
use crate::server;

const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;
/// What admission puts into Pods; such tokens are extended (upstream: `WarnOnlyBoundTokenExpirationSeconds`).
const WARN_ONLY_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

pub async fn create(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let name = request.name()?.to_owned();
    let namespace = request.namespace().unwrap_or_default().to_owned();
    let mut body = request.call.body.take().ok_or_else(|| Failure::bad_request("the body is empty"))?;
    typed::check(&mut body, ["authentication.k8s.io", "v1", "TokenRequest"], &[], Strictness::Ignore)?;
    request.admit(&name, &mut body).await?;
    let invalid = |error: FieldError| Failure::invalid("authentication.k8s.io", "TokenRequest", "", vec![error]);
    let named = body.part("metadata");
    for (field, given, wanted, what) in [
        ("metadata.name", named.text("name"), name.as_str(), "name"),
        ("metadata.namespace", named.text("namespace"), namespace.as_str(), "namespace"),
    ] {
        if !given.is_empty() && given != wanted {
            let text = format!("must match the service account {what} if specified");
            let error = FieldError::invalid(field, &given.into(), &text);
            return Err(Failure::invalid("authentication.k8s.io", "TokenRequest", &name, vec![error]));
        }
    }
    let spec = body.part("spec").clone();
    let mut seconds = spec.int("expirationSeconds").unwrap_or(SECONDS_DEFAULT);
    if seconds < SECONDS_MIN {
        let text = "may not specify a duration less than 10 minutes";
        return Err(invalid(FieldError::invalid("spec.expirationSeconds", &seconds.into(), text)));
    }
    if seconds > SECONDS_MAX {
        let text = "may not specify a duration larger than 2^32 seconds";
        return Err(invalid(FieldError::invalid("spec.expirationSeconds", &seconds.into(), text)));
    }
    let mut warnings = Vec::new();
    let options = &request.server.config().service_accounts;
    if let Some(max) =
        options.token_expiration_max.and_then(|max| i64::try_from(max.as_secs()).ok()).filter(|max| *max < seconds)
    {
        warnings.push(format!("requested expiration of {seconds} seconds shortened to {max} seconds"));
        seconds = max;
    }
    let account = decoded(&request.row, request.read(&name).await?.as_ref())?;
    let keys = request.server.authenticator().tokens().keys();
    let mut audiences: Vec<String> =
        spec.list("audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences = keys.audiences().to_vec();
    }
    let (uid, asked) = (account.part("metadata").text("uid"), body.part("metadata").text("uid"));
    if !asked.is_empty() && asked != uid {
        let why =
            format!("the UID in the token request ({asked}) does not match the UID of the service account ({uid})");
        return Err(Failure::conflict("authentication.k8s.io", "TokenRequest", &name, why));
    }
    let bound = bound(&request, &name, spec.part("boundObjectRef")).await?;
    let now_seconds = request.now.as_second();
    // A Pod's token that the kubelet renews anyway may live on for clients that read it only once.
    let extended = options.extend_token_expiration
        && bound.pod.is_some()
        && seconds == WARN_ONLY_SECONDS
        && audiences.iter().all(|audience| keys.audiences().contains(audience));
    let request_for = TokenRequest {
        namespace: &namespace,
        service_account: Named { name: name.clone(), uid: account.part("metadata").text("uid").to_owned() },
        audiences: audiences.clone(),
        bound,
        seconds: if extended { EXTENDED_SECONDS } else { seconds },
        warn_after_seconds: extended.then_some(seconds),
        now_seconds,
        id: server::uid(&mut request.server.rng()),
    };
    let token = authn::sign(keys, request_for).map_err(Failure::internal)?;
    let expires = request.now.checked_add(SignedDuration::from_secs(seconds)).map_err(Failure::internal)?;
    let mut spec = spec;
    if !spec.is_object() {
        spec = json!({});
    }
    spec.set("audiences", audiences);
    spec.set("expirationSeconds", seconds);
    let outcome = Outcome::value(
        201,
        json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "creationTimestamp": api::meta::time(request.now)},
            "spec": spec,
            "status": {"token": token, "expirationTimestamp": api::meta::time(expires)},
        }),
    );
    Ok(outcome.warning(warnings))
}

/// The object whose life the token is to share; it must exist and, if it is a Pod, run under this account.
async fn bound(request: &Request<'_>, account: &str, wanted: &Value) -> Result<BoundTo, Failure> {
    if !wanted.is_object() {
        return Ok(BoundTo::default());
    }
    let plural = match (wanted.text("apiVersion"), wanted.text("kind")) {
        ("v1" | "", "Pod") => "pods",
        ("v1" | "", "Secret") => "secrets",
        ("v1" | "", "Node") => "nodes",
        (version, kind) => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let text = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Failure::bad_request(text));
        }
    };
    let row = Row::find("", "v1", plural).ok_or_else(|| Failure::internal("no such row"))?;
    let name = wanted.text("name");
    let path = key(row, request.namespace(), name)?;
    let stored = request.server.storage().read(&path, row.list_key(None).len()).await?;
    let stored = stored.ok_or_else(|| Failure::not_found("", plural, name))?;
    let object = decoded(row, &stored)?;
    let (metadata, spec) = (object.part("metadata"), object.part("spec"));
    let uid = metadata.text("uid");
    let asked = wanted.text("uid");
    if !asked.is_empty() && asked != uid {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Failure::conflict("", plural, name, why));
    }
    let named = Named { name: name.to_owned(), uid: uid.to_owned() };
    Ok(match plural {
        "pods" => {
            if spec.text("serviceAccountName") != account {
                return Err(Failure::bad_request(format!(
                    "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
                )));
            }
            let node = spec.text("nodeName");
            let node = (!node.is_empty()).then(|| Named { name: node.to_owned(), uid: node_uid(request, node) });
            BoundTo { pod: Some(named), node, secret: None }
        }
        "secrets" => BoundTo { secret: Some(named), ..BoundTo::default() },
        _ => BoundTo { node: Some(named), ..BoundTo::default() },
    })
}

/// Empty when the node is not there, as upstream leaves it out then.
fn node_uid(request: &Request<'_>, node: &str) -> String {
    let stored = request.server.cache().resource(b"/registry/minions/").and_then(|nodes| nodes.get(node));
    let object = stored.and_then(|stored| serde_json::from_slice::<Value>(&stored.value).ok());
    object.map(|object| object.part("metadata").text("uid").to_owned()).unwrap_or_default()
}
