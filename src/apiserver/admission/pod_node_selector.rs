//! PodNodeSelector: a namespace says on which nodes its Pods run, and which of them they may choose.

use std::sync::Arc;

use api::{Failure, Fields, Reason};
use serde_json::Value;

use super::objects::Objects;
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;
use crate::config::{Labels, NodeSelectors, node_labels};

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";

pub struct PodNodeSelector {
    configured: NodeSelectors,
    /// What namespaces say in their annotation.
    annotated: Objects<Option<Result<Labels, String>>>,
}

impl PodNodeSelector {
    pub fn new(cache: &Cache, configured: NodeSelectors) -> PodNodeSelector {
        let read = |namespace: &Value| {
            let annotation = namespace.part("metadata").part("annotations").at(ANNOTATION)?;
            Some(node_labels(annotation.as_str().unwrap_or_default()))
        };
        PodNodeSelector { configured, annotated: Objects::new(cache, "/registry/namespaces/", read) }
    }

    fn of_namespace(&self, name: &str) -> Result<Labels, Failure> {
        let annotated = self.annotated.get(name).ok_or_else(|| Failure::not_found("", "namespaces", name))?;
        match Arc::as_ref(&annotated) {
            None => Ok(self.configured.default.clone()),
            Some(Ok(labels)) => Ok(labels.clone()),
            Some(Err(why)) => Err(Failure::new(Reason::Unknown, why.as_str())),
        }
    }

    /// What the Pod's selector becomes with its namespace's.
    fn check(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<Labels, Failure> {
        let mut selector = self.of_namespace(attributes.namespace)?;
        let own = pod.part("spec").map("nodeSelector");
        for (key, value) in own.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            if selector.get(key).is_some_and(|other| other != value) {
                let why = "pod node label selector conflicts with its namespace node label selector";
                return Err(attributes.refuse(why));
            }
            selector.insert(key.clone(), value.to_owned());
        }
        let allowed = self.configured.by_namespace.get(attributes.namespace).filter(|allowed| !allowed.is_empty());
        if allowed.is_some_and(|allowed| selector.iter().any(|(key, value)| allowed.get(key) != Some(value))) {
            return Err(attributes.refuse("pod node label selector labels conflict with its namespace whitelist"));
        }
        Ok(selector)
    }
}

impl Plugin for PodNodeSelector {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let selector = self.check(attributes, object)?;
        if let Some(spec) = object.object("spec").filter(|_| !selector.is_empty()) {
            spec.set("nodeSelector", Value::from_iter(selector));
        }
        Ok(())
    }

    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        match object {
            Some(pod) if attributes.is("", "pods") && attributes.operation == Operation::Create => {
                self.check(attributes, pod).map(drop)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Fixture;

    fn pod(name: &str, selector: Value) -> Value {
        let spec = json!({"containers": [{"name": "c", "image": "i"}], "nodeSelector": selector});
        json!({"metadata": {"name": name}, "spec": spec})
    }

    #[tokio::test]
    async fn a_namespace_says_where_its_pods_run() {
        let configured = NodeSelectors {
            default: node_labels("zone=a").unwrap(),
            by_namespace: [("default".to_owned(), node_labels("zone=a, disk=ssd").unwrap())].into(),
        };
        let t = Fixture::with(|config| {
            config.admission.enabled = vec!["PodNodeSelector".to_owned()];
            config.admission.node_selectors = configured;
        });
        let t = t.await.with_account().await;
        let made = t.create("", "pods", pod("a", json!({"disk": "ssd"}))).await.unwrap();
        assert_eq!(made["spec"]["nodeSelector"], json!({"disk": "ssd", "zone": "a"}));
        let conflicts = t.create("", "pods", pod("b", json!({"zone": "b"}))).await.unwrap_err();
        assert!(conflicts.message.ends_with("conflicts with its namespace node label selector"), "{conflicts}");
        let outside = t.create("", "pods", pod("b", json!({"other": "x"}))).await.unwrap_err();
        assert!(outside.message.ends_with("labels conflict with its namespace whitelist"), "{outside}");

        let mut namespace = t.get("", "namespaces/default").await.unwrap();
        namespace["metadata"]["annotations"][ANNOTATION] = json!("disk=ssd");
        let namespace = t.update("", "namespaces/default", namespace).await.unwrap();
        t.catch_up().await;
        let made = t.create("", "pods", pod("b", json!({}))).await.unwrap();
        assert_eq!(made["spec"]["nodeSelector"], json!({"disk": "ssd"}), "the annotation replaces the default");
        let mut namespace = namespace;
        namespace["metadata"]["annotations"][ANNOTATION] = json!("disk");
        t.update("", "namespaces/default", namespace).await.unwrap();
        t.catch_up().await;
        let failure = t.create("", "pods", pod("c", json!({}))).await.unwrap_err();
        assert_eq!((failure.code, failure.message.as_str()), (500, "invalid selector: [disk]"));
    }
}
