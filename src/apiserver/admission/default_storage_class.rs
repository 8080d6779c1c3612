//! DefaultStorageClass: a claim that names no class gets the newest of those that are marked as default.

use api::{Failure, Fields};
use serde_json::Value;

use super::objects::{Class, Objects, default_class};
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

const MARK: &str = "storageclass.kubernetes.io/is-default-class";
const OLD_MARK: &str = "storageclass.beta.kubernetes.io/is-default-class";
const OLD_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub struct DefaultStorageClass {
    classes: Objects<Class>,
}

impl DefaultStorageClass {
    pub fn new(cache: &Cache) -> DefaultStorageClass {
        DefaultStorageClass { classes: Objects::new(cache, "/registry/storageclasses/", read) }
    }
}

fn read(class: &Value) -> Class {
    let metadata = class.part("metadata");
    let annotations = metadata.part("annotations");
    Class {
        name: metadata.text("name").to_owned(),
        created: metadata.text("creationTimestamp").to_owned(),
        is_default: annotations.text(MARK) == "true" || annotations.text(OLD_MARK) == "true",
    }
}

impl Plugin for DefaultStorageClass {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("", "persistentvolumeclaims") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let named = object.part("spec").has("storageClassName")
            || object.part("metadata").map("annotations").is_some_and(|all| all.contains_key(OLD_ANNOTATION));
        if named {
            return Ok(());
        }
        if let (Some(class), Some(spec)) = (default_class(&self.classes), object.object("spec")) {
            spec.set("storageClassName", class.name.as_str());
        }
        Ok(())
    }
}
