//! DefaultStorageClass: a claim that names no class gets the newest of those that are marked as default.

use api::{Failure, Fields};
use serde_json::Value;

use super::{Attributes, Operation, Plugin, all};
use crate::cache::Cache;

const MARK: &str = "storageclass.kubernetes.io/is-default-class";
const OLD_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn mutate(
        &self,
        cache: &Cache,
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
        let classes = all(cache, "/registry/storageclasses/", None).into_iter();
        let default = classes
            .filter(|class| class.part("metadata").part("annotations").text(MARK) == "true")
            .max_by_key(|class| {
                let metadata = class.part("metadata");
                (metadata.text("creationTimestamp").to_owned(), std::cmp::Reverse(metadata.text("name").to_owned()))
            });
        if let (Some(class), Some(spec)) = (default, object.object("spec")) {
            spec.set("storageClassName", class.part("metadata").text("name"));
        }
        Ok(())
    }
}
