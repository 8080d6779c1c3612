//! Whether somebody serves an aggregated group version: the condition `Available` of its APIService.

use std::time::Duration;

use api::{Fields, Row};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};

use super::{Registered, Remote, front_proxy};
use crate::server::ApiServer;

/// The answer should come fast (upstream: 5 s), and one success of several tries is enough.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const TRIES: usize = 5;
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What was found out: the condition's status, reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Finding {
    fn no(reason: &'static str, message: String) -> Finding {
        Finding { status: "False", reason, message }
    }

    /// What this server serves itself.
    pub fn local() -> Finding {
        let message = "Local APIServices are always available".to_owned();
        Finding { status: "True", reason: "Local", message }
    }

    fn passed() -> Finding {
        Finding { status: "True", reason: "Passed", message: "all checks passed".to_owned() }
    }
}

/// The object's status with the finding in it; `None` if it says so already.
pub fn with_condition(object: &Value, finding: &Finding, now: &str) -> Option<Value> {
    let mut conditions = object.part("status").list("conditions").to_vec();
    let mut fresh = json!({
        "type": "Available", "status": finding.status, "reason": finding.reason, "message": finding.message,
        "lastTransitionTime": now,
    });
    match conditions.iter_mut().find(|one| one.text("type") == "Available") {
        Some(one) => {
            if one.text("status") == finding.status {
                // It is no transition.
                fresh.set("lastTransitionTime", one.part("lastTransitionTime").clone());
            }
            if *one == fresh {
                return None;
            }
            *one = fresh;
        }
        None => conditions.push(fresh),
    }
    let mut object = object.clone();
    object.object("status")?.set("conditions", conditions);
    Some(object)
}

/// Looks at the Service and asks behind it.
pub async fn check(server: &ApiServer, registered: &Registered, remote: &Remote) -> Finding {
    let of = |group: &str, plural: &str| Row::find(group, "v1", plural).map(|row| row.list_key(None));
    let cache = |prefix: Option<String>| server.cache().resource(prefix?.as_bytes());
    let services = cache(of("", "services"));
    let stored = services.and_then(|services| services.get(&format!("{}/{}", remote.namespace, remote.service)));
    let service = stored.and_then(|stored| serde_json::from_slice(&stored.value).ok());
    let slices = cache(of("discovery.k8s.io", "endpointslices"));
    let slices = slices.map(|slices| slices.objects(Some(&remote.namespace))).unwrap_or_default();
    let slices: Vec<Value> = slices
        .iter()
        .filter_map(|stored| serde_json::from_slice::<Value>(&stored.value).ok())
        .filter(|slice| slice.part("metadata").part("labels").text(SERVICE_NAME) == remote.service)
        .collect();
    if let Err(finding) = look(remote, service.as_ref(), &slices) {
        return finding;
    }
    ask(server, registered, remote).await
}

/// What the Service and its endpoints say.
fn look(remote: &Remote, service: Option<&Value>, slices: &[Value]) -> Result<(), Finding> {
    let (namespace, name, port) = (&remote.namespace, &remote.service, remote.port);
    let place = format!("service/{name} in {namespace:?}");
    let Some(service) = service else {
        return Err(Finding::no("ServiceNotFound", format!("{place} is not present")));
    };
    let spec = service.part("spec");
    if !matches!(spec.text("type"), "" | "ClusterIP") {
        return Ok(());
    }
    let found = spec.list("ports").iter().find(|one| one.int("port") == Some(i64::from(port)));
    let Some(found) = found else {
        return Err(Finding::no("ServicePortError", format!("{place} is not listening on port {port}")));
    };
    if slices.is_empty() {
        return Err(Finding::no("EndpointsNotFound", format!("cannot find endpointslices for {place}")));
    }
    let port_name = found.text("name");
    let serves = |slice: &Value| {
        let ready = |one: &Value| one.part("conditions").at("ready").and_then(Value::as_bool).unwrap_or(true);
        slice.list("endpoints").iter().any(ready)
            && slice.list("ports").iter().any(|one| one.text("name") == port_name && one.has("port"))
    };
    if slices.iter().any(serves) {
        return Ok(());
    }
    let message = format!("endpointslices for {place} have no addresses with port name {port_name:?}");
    Err(Finding::no("MissingEndpoints", message))
}

async fn ask(server: &ApiServer, registered: &Registered, remote: &Remote) -> Finding {
    let failed = |why: String| Finding::no("FailedDiscoveryCheck", why);
    let endpoint = match &remote.endpoint {
        Ok(endpoint) => endpoint,
        Err(error) => return failed(error.to_string()),
    };
    let path = format!("/apis/{}/{}", registered.group, registered.version);
    let url = format!("{}{path}", endpoint.base());
    let tries = (0..TRIES).filter_map(|_| front_proxy::question(&path, "application/json").ok());
    let mut tries: FuturesUnordered<_> =
        tries.map(|question| server.caller().exchange(endpoint, question, ANSWER_MAX)).collect();
    let mut last = String::new();
    while let Some(answered) = tries.next().await {
        last = match answered {
            Ok(answer) if answer.status().is_success() => return Finding::passed(),
            Ok(answer) => format!("bad status from {url}: {}", answer.status().as_u16()),
            Err(error) => error.to_string(),
        };
    }
    failed(format!("failing or missing response from {url}: {last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Remote {
        let endpoint = crate::webhook::Endpoint::url("https://x", pki::Trust::Anybody);
        Remote { namespace: "n".to_owned(), service: "s".to_owned(), port: 443, endpoint, available: false }
    }

    #[test]
    fn what_is_missing_is_named() {
        let why = |service: Option<Value>, slices: &[Value]| {
            look(&remote(), service.as_ref(), slices).err().map(|finding| (finding.reason, finding.message))
        };
        let missing = why(None, &[]).unwrap();
        assert_eq!(missing, ("ServiceNotFound", "service/s in \"n\" is not present".to_owned()));
        let service =
            |port: u16| Some(json!({"spec": {"type": "ClusterIP", "ports": [{"name": "web", "port": port}]}}));
        let deaf = why(service(80), &[]).unwrap();
        assert_eq!(deaf, ("ServicePortError", "service/s in \"n\" is not listening on port 443".to_owned()));
        let alone = why(service(443), &[]).unwrap();
        assert_eq!(alone, ("EndpointsNotFound", "cannot find endpointslices for service/s in \"n\"".to_owned()));
        let slice = |ready: bool, port: &str| {
            json!({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
                "ports": [{"name": port, "port": 8443}]})
        };
        let text = "endpointslices for service/s in \"n\" have no addresses with port name \"web\"";
        for slice in [slice(false, "web"), slice(true, "other")] {
            assert_eq!(why(service(443), &[slice]).unwrap(), ("MissingEndpoints", text.to_owned()));
        }
        assert_eq!(why(service(443), &[slice(true, "web")]), None);
        assert_eq!(why(Some(json!({"spec": {"type": "ExternalName"}})), &[]), None);
    }

    #[test]
    fn a_transition_has_a_time_and_a_repetition_has_none() {
        let object = json!({"metadata": {"name": "v1.x"}});
        let first = with_condition(&object, &Finding::passed(), "1").unwrap();
        assert_eq!(first["status"]["conditions"][0]["lastTransitionTime"], "1");
        assert_eq!(with_condition(&first, &Finding::passed(), "2"), None);
        let failed = with_condition(&first, &Finding::no("A", "a".to_owned()), "3").unwrap();
        assert_eq!(failed["status"]["conditions"][0]["lastTransitionTime"], "3");
        let other = with_condition(&failed, &Finding::no("B", "b".to_owned()), "4").unwrap();
        let condition = &other["status"]["conditions"][0];
        assert_eq!((&condition["reason"], &condition["lastTransitionTime"]), (&json!("B"), &json!("3")));
    }
}
