//! DefaultIngressClass and DefaultStorageClass: what names no class gets the newest of those that are marked as default.

use api::{Failure, Fields};
use serde_json::Value;

use super::objects::Objects;
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

/// Objects that have a class, and the classes.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Group and plural of the objects.
    of: (&'static str, &'static str),
    /// The field of their spec that names a class, and the annotation that once did.
    field: &'static str,
    annotation: &'static str,
    /// Where the classes are, and the annotations that mark the default.
    prefix: &'static str,
    marks: &'static [&'static str],
}

pub const INGRESS: Kind = Kind {
    of: ("networking.k8s.io", "ingresses"),
    field: "ingressClassName",
    annotation: "kubernetes.io/ingress.class",
    prefix: "/registry/ingressclasses/",
    marks: &["ingressclass.kubernetes.io/is-default-class"],
};

pub const STORAGE: Kind = Kind {
    of: ("", "persistentvolumeclaims"),
    field: "storageClassName",
    annotation: "volume.beta.kubernetes.io/storage-class",
    prefix: "/registry/storageclasses/",
    marks: &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"],
};

pub struct DefaultClass {
    kind: Kind,
    classes: Objects<Class>,
}

struct Class {
    name: String,
    created: String,
    /// Annotations that say `true`.
    marks: Vec<String>,
}

impl DefaultClass {
    pub fn new(cache: &Cache, kind: Kind) -> DefaultClass {
        DefaultClass { classes: Objects::new(cache, kind.prefix, read), kind }
    }

    /// The newest default class, and of those that are equally old the first by name.
    fn default(&self) -> Option<String> {
        let marked = |class: &Class| self.kind.marks.iter().any(|mark| class.marks.iter().any(|one| one == mark));
        let defaults = self.classes.all(None).into_iter().filter(|class| marked(class));
        let newest = defaults.max_by(|a, b| a.created.cmp(&b.created).then_with(|| b.name.cmp(&a.name)));
        newest.map(|class| class.name.clone())
    }
}

fn read(class: &Value) -> Class {
    let metadata = class.part("metadata");
    let annotations = metadata.map("annotations").into_iter().flatten();
    Class {
        name: metadata.text("name").to_owned(),
        created: metadata.text("creationTimestamp").to_owned(),
        marks: annotations.filter(|(_, value)| *value == "true").map(|(name, _)| name.clone()).collect(),
    }
}

impl Plugin for DefaultClass {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        let Kind { of: (group, plural), field, annotation, .. } = self.kind;
        if !attributes.is(group, plural) || attributes.operation != Operation::Create {
            return Ok(());
        }
        let named = object.part("spec").has(field)
            || object.part("metadata").map("annotations").is_some_and(|all| all.contains_key(annotation));
        if named {
            return Ok(());
        }
        if let (Some(class), Some(spec)) = (self.default(), object.object("spec")) {
            spec.set(field, class);
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
            let metadata = json!({"name": name, "annotations": {(super::INGRESS.marks[0]): default}});
            let class = json!({"metadata": metadata, "spec": {"controller": "example.com/c"}});
            t.create("networking.k8s.io", "ingressclasses", class).await.unwrap();
        }
        t.catch_up().await;
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}});
        let made = t.create("networking.k8s.io", "ingresses", ingress.clone()).await.unwrap();
        assert!(["a", "b"].contains(&made["spec"]["ingressClassName"].as_str().unwrap()), "{made}");
        let mut own = ingress;
        own["metadata"] = json!({"name": "j", "annotations": {super::INGRESS.annotation: "mine"}});
        let made = t.create("networking.k8s.io", "ingresses", own).await.unwrap();
        assert!(made["spec"].get("ingressClassName").is_none(), "{made}");
    }

    #[tokio::test]
    async fn a_claim_without_class_gets_the_default_one() {
        let t = Fixture::start().await;
        let claim = |name: &str| {
            let resources = json!({"requests": {"storage": "1Gi"}});
            json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": resources}})
        };
        let made = t.create("", "persistentvolumeclaims", claim("before")).await.unwrap();
        assert!(made["spec"].get("storageClassName").is_none(), "{made}");
        for (name, mark) in [("a", super::STORAGE.marks[1]), ("b", "ingressclass.kubernetes.io/is-default-class")] {
            let class =
                json!({"metadata": {"name": name, "annotations": {mark: "true"}}, "provisioner": "example.com/p"});
            t.create("storage.k8s.io", "storageclasses", class).await.unwrap();
        }
        t.catch_up().await;
        let made = t.create("", "persistentvolumeclaims", claim("after")).await.unwrap();
        assert_eq!(made["spec"]["storageClassName"], "a");
    }
}
