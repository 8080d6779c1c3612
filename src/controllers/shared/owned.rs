//! Who controls whom: owner references with `controller: true`.

use client::{Failure, Informer, Key, Object, Queue};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The reference that makes `owner` the controller of an object.
pub fn controller_reference<T: Object>(owner: &T) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: T::API_VERSION.to_owned(),
        kind: T::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference to an object's controller, if it has one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|reference| reference.controller == Some(true))
}

pub fn is_controlled_by(meta: &ObjectMeta, uid: Option<&str>) -> bool {
    uid.is_some() && controller_of(meta).map(|reference| reference.uid.as_str()) == uid
}

/// Queues whoever controls an object; of one that nobody controls, those that select it and may adopt it.
pub fn wake_owners<S: Object>(
    queue: &Queue<Key>,
    owners: &Informer<S>,
    dependent: &ObjectMeta,
    selects: impl Fn(&S) -> bool,
) {
    let namespace = dependent.namespace.as_deref().unwrap_or_default();
    match controller_of(dependent) {
        Some(owner) if owner.kind == S::KIND => queue.add(Key::new(namespace, owner.name.clone())),
        Some(_) => {}
        None => {
            let adopting = owners.list_in(namespace).into_iter().filter(|owner| selects(owner));
            adopting.for_each(|owner| queue.add(Key::of(&*owner)));
        }
    }
}

pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// For deletions and the like: that the object is gone already is as good.
pub fn gone_is_fine<T>(outcome: Result<T, Failure>) -> Result<(), Failure> {
    match outcome {
        Err(failure) if !failure.is_not_found() => Err(failure),
        _ => Ok(()),
    }
}
