//! PodTolerationRestriction: a namespace says which taints its Pods tolerate, and which they may.

use api::{Failure, Fields, Reason};
use serde_json::{Value, json};

use super::objects::Objects;
use super::{Attributes, Operation, Plugin, tolerations};
use crate::cache::Cache;
use crate::config::Tolerations;

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

pub struct PodTolerationRestriction {
    /// For namespaces that say nothing.
    configured: Tolerations,
    annotated: Objects<Annotated>,
}

/// What a namespace says; `None` where it says nothing.
struct Annotated {
    defaults: Option<Result<Vec<Value>, String>>,
    allowed: Option<Result<Vec<Value>, String>>,
}

impl PodTolerationRestriction {
    pub fn new(cache: &Cache, configured: Tolerations) -> PodTolerationRestriction {
        let read = |namespace: &Value| {
            let annotations = namespace.part("metadata").part("annotations");
            let read = |name: &str| annotations.at(name).and_then(Value::as_str).map(parse);
            Annotated { defaults: read(DEFAULTS), allowed: read(ALLOWED) }
        };
        PodTolerationRestriction { configured, annotated: Objects::new(cache, "/registry/namespaces/", read) }
    }

    fn annotated(&self, attributes: &Attributes<'_>) -> Result<std::sync::Arc<Annotated>, Failure> {
        let name = attributes.namespace;
        self.annotated.get(name).ok_or_else(|| Failure::not_found("", "namespaces", name))
    }

    fn check(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<(), Failure> {
        let tolerations = pod.part("spec").list("tolerations");
        if tolerations.is_empty() {
            return Ok(());
        }
        let annotated = self.annotated(attributes)?;
        let (allowed, scope) = match &annotated.allowed {
            Some(allowed) => (known(allowed)?, "namespace"),
            None => (self.configured.allowed.as_slice(), "cluster"),
        };
        let is_allowed = |one: &Value| allowed.iter().any(|wide| tolerations::covers(wide, one));
        if allowed.is_empty() || tolerations.iter().all(is_allowed) {
            return Ok(());
        }
        // Upstream's answer is no Status here, and so has no reason.
        Err(Failure::new(
            Reason::Unknown,
            format!(
                "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} \
                 whitelist"
            ),
        ))
    }
}

/// An annotation holds tolerations as JSON; an empty one holds none.
fn parse(text: &str) -> Result<Vec<Value>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let all: Vec<k8s_openapi::api::core::v1::Toleration> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    all.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

fn known(read: &Result<Vec<Value>, String>) -> Result<&[Value], Failure> {
    match read {
        Ok(all) => Ok(all),
        Err(why) => Err(Failure::new(Reason::Unknown, why.as_str())),
    }
}

fn concerns(attributes: &Attributes<'_>) -> bool {
    attributes.is("", "pods") && matches!(attributes.operation, Operation::Create | Operation::Update)
}

impl Plugin for PodTolerationRestriction {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !concerns(attributes) {
            return Ok(());
        }
        let mut more = Vec::new();
        if attributes.operation == Operation::Create {
            let annotated = self.annotated(attributes)?;
            more = match &annotated.defaults {
                Some(defaults) => known(defaults)?.to_vec(),
                None => self.configured.defaults.clone(),
            };
        }
        let Some(spec) = object.object("spec") else { return Ok(()) };
        if api::strategy::pod::qos_class(spec) != "BestEffort" {
            let pressure = "node.kubernetes.io/memory-pressure";
            more.push(json!({"key": pressure, "operator": "Exists", "effect": "NoSchedule"}));
        }
        if !more.is_empty() {
            let merged = tolerations::merged(spec.list("tolerations"), &more);
            spec.set("tolerations", merged);
        }
        self.check(attributes, object)
    }

    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        object.filter(|_| concerns(attributes)).map_or(Ok(()), |pod| self.check(attributes, pod))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    fn pod(name: &str, tolerations: Value) -> Value {
        let spec = json!({"containers": [{"name": "c", "image": "i"}], "tolerations": tolerations});
        json!({"metadata": {"name": name}, "spec": spec})
    }

    #[tokio::test]
    async fn a_namespace_says_what_its_pods_tolerate() {
        let off = "disable-admission-plugins=DefaultTolerationSeconds";
        let t = Fixture::with_flags(&["enable-admission-plugins=PodTolerationRestriction", off]).await;
        let t = t.with_account().await;
        let gpu = json!({"key": "gpu", "operator": "Exists"});
        let mut namespace = t.get("", "namespaces/default").await.unwrap();
        namespace["metadata"]["annotations"][DEFAULTS] = json!(json!([gpu]).to_string());
        namespace["metadata"]["annotations"][ALLOWED] =
            json!(json!([gpu, {"key": "disk", "operator": "Exists"}]).to_string());
        t.update("", "namespaces/default", namespace).await.unwrap();
        t.catch_up().await;
        let disk = json!({"key": "disk", "operator": "Equal", "value": "ssd"});
        let made = t.create("", "pods", pod("a", json!([disk]))).await.unwrap();
        assert_eq!(made["spec"]["tolerations"], json!([disk, gpu]));
        let failure = t.create("", "pods", pod("b", json!([{"operator": "Exists"}]))).await.unwrap_err();
        assert_eq!(
            (failure.code, failure.message.as_str()),
            (
                500,
                "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace \
                 whitelist"
            )
        );
    }
}
