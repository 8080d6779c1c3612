//! DefaultIngressClass: an Ingress that names no class gets the newest of those that are marked as default.

use api::{Failure, Fields};
use serde_json::Value;

use super::objects::{Class, Objects, default_class};
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

const MARK: &str = "ingressclass.kubernetes.io/is-default-class";
const OLD_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub struct DefaultIngressClass {
    classes: Objects<Class>,
}

impl DefaultIngressClass {
    pub fn new(cache: &Cache) -> DefaultIngressClass {
        DefaultIngressClass { classes: Objects::new(cache, "/registry/ingressclasses/", read) }
    }
}

fn read(class: &Value) -> Class {
    let metadata = class.part("metadata");
    Class {
        name: metadata.text("name").to_owned(),
        created: metadata.text("creationTimestamp").to_owned(),
        is_default: metadata.part("annotations").text(MARK) == "true",
    }
}

impl Plugin for DefaultIngressClass {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("networking.k8s.io", "ingresses") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let named = object.part("spec").has("ingressClassName")
            || object.part("metadata").map("annotations").is_some_and(|all| all.contains_key(OLD_ANNOTATION));
        if named {
            return Ok(());
        }
        if let (Some(class), Some(spec)) = (default_class(&self.classes), object.object("spec")) {
            spec.set("ingressClassName", class.name.as_str());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Fixture;

    #[tokio::test]
    async fn an_ingress_without_class_gets_the_default_one() {
        let t = Fixture::start().await;
        for (name, default) in [("a", "true"), ("b", "true"), ("c", "false")] {
            let metadata = json!({"name": name, "annotations": {super::MARK: default}});
            let class = json!({"metadata": metadata, "spec": {"controller": "example.com/c"}});
            t.create("networking.k8s.io", "ingressclasses", class).await.unwrap();
        }
        t.catch_up().await;
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}});
        let made = t.create("networking.k8s.io", "ingresses", ingress.clone()).await.unwrap();
        assert!(["a", "b"].contains(&made["spec"]["ingressClassName"].as_str().unwrap()), "{made}");
        let mut own = ingress;
        own["metadata"] = json!({"name": "j", "annotations": {super::OLD_ANNOTATION: "mine"}});
        let made = t.create("networking.k8s.io", "ingresses", own).await.unwrap();
        assert!(made["spec"].get("ingressClassName").is_none(), "{made}");
    }
}
