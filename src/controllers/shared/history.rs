//! The history of a workload's templates: ControllerRevisions, of which the one with the highest number is the present.
//!
//! A revision holds a patch that puts the template back, which is what `kubectl rollout undo` applies. Two revisions are
//! the same when their patches are.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use client::{Client, DeleteOptions, Failure, Key, Object};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde::Serialize;
use serde_json::{Value, json};

use crate::shared::hash;
use crate::shared::owned::{controller_reference, gone_is_fine};

/// Names that were tried for one revision before it is left to the next look.
const NAMES_TRIED_MAX: i32 = 10;

/// The patch that puts this template back into a workload.
pub fn patch_of(template: &impl Serialize) -> Result<Value, Failure> {
    let mut template = serde_json::to_value(template).map_err(Failure::internal)?;
    template["$patch"] = json!("replace");
    Ok(json!({"spec": {"template": template}}))
}

/// What the present template is in a history.
#[derive(Debug, PartialEq)]
pub enum Present {
    /// This revision, which is to have this number. Others that hold the same are not needed.
    Known { revision: Arc<ControllerRevision>, number: i64, twins: Vec<Arc<ControllerRevision>> },
    /// None yet; it will have this number.
    New { number: i64 },
}

/// Looks a patch up in a history. Yields the revisions that hold others too, in their order.
pub fn look_up(revisions: &[Arc<ControllerRevision>], patch: &Value) -> (Present, Vec<Arc<ControllerRevision>>) {
    let holds = |revision: &&Arc<ControllerRevision>| revision.data.as_ref().is_some_and(|data| data.0 == *patch);
    let (mut same, mut others): (Vec<Arc<_>>, Vec<Arc<_>>) = revisions.iter().cloned().partition(|one| holds(&one));
    same.sort_by_key(|one| one.revision);
    others.sort_by_key(|one| {
        let created = one.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (one.revision, created, one.metadata.name.clone())
    });
    let next = others.last().map_or(0, |last| last.revision) + 1;
    let present = match same.pop() {
        Some(revision) => Present::Known { number: revision.revision.max(next), revision, twins: same },
        None => Present::New { number: next },
    };
    (present, others)
}

/// The oldest revisions beyond `kept`, without those that are `live`, by their names.
pub fn surplus(others: &[Arc<ControllerRevision>], kept: usize, live: &HashSet<&str>) -> Vec<Arc<ControllerRevision>> {
    let is_live = |one: &&Arc<ControllerRevision>| one.metadata.name.as_deref().is_some_and(|name| live.contains(name));
    others.iter().filter(|one| !is_live(one)).take(others.len().saturating_sub(kept)).cloned().collect()
}

/// A revision to make.
pub struct New<'a, T> {
    pub owner: &'a T,
    /// Those of the template; the label `hash_label` comes to them.
    pub labels: BTreeMap<String, String>,
    pub hash_label: &'static str,
    pub patch: Value,
    pub number: i64,
    /// How often hashes have met so far.
    pub collisions: i32,
}

impl<T: Object> New<'_, T> {
    /// Makes the revision, under another name if another one has its name. Yields how often hashes have met by then.
    pub async fn create(self, client: &Client) -> Result<(ControllerRevision, i32), Failure> {
        let mut collisions = self.collisions;
        loop {
            let revision = self.build(collisions)?;
            match client.create(&revision).await {
                Err(failure) if failure.is_already_exists() => {
                    let Key { namespace, name } = Key::of(&revision);
                    let existing = client.get::<ControllerRevision>(&namespace, &name).await?;
                    if existing.data == revision.data {
                        return Ok((existing, collisions));
                    }
                    collisions += 1;
                    if collisions - self.collisions > NAMES_TRIED_MAX {
                        return Err(failure);
                    }
                }
                outcome => return outcome.map(|created| (created, collisions)),
            }
        }
    }

    fn build(&self, collisions: i32) -> Result<ControllerRevision, Failure> {
        let hash = hash::of(&self.patch, Some(collisions).filter(|count| *count != 0))?;
        let meta = self.owner.metadata();
        let mut labels = self.labels.clone();
        labels.insert(self.hash_label.to_owned(), hash.clone());
        Ok(ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", meta.name.as_deref().unwrap_or_default())),
                namespace: meta.namespace.clone(),
                labels: Some(labels),
                annotations: meta.annotations.clone(),
                owner_references: Some(vec![controller_reference(self.owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(self.patch.clone())),
            revision: self.number,
        })
    }
}

/// Gives a revision its number; yields it as it is then.
pub async fn renumber(
    client: &Client,
    revision: Arc<ControllerRevision>,
    number: i64,
) -> Result<Arc<ControllerRevision>, Failure> {
    if revision.revision == number {
        return Ok(revision);
    }
    let changed = ControllerRevision { revision: number, ..ControllerRevision::clone(&revision) };
    client.update(&changed).await.map(Arc::new)
}

pub async fn delete(client: &Client, revision: &ControllerRevision) -> Result<(), Failure> {
    let Key { namespace, name } = Key::of(revision);
    let options = DeleteOptions { uid: revision.metadata.uid.clone(), ..DeleteOptions::default() };
    gone_is_fine(client.delete::<ControllerRevision>(&namespace, &name, options).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str, number: i64, data: &str) -> Arc<ControllerRevision> {
        Arc::new(ControllerRevision {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            data: Some(RawExtension(json!(data))),
            revision: number,
        })
    }

    fn names(revisions: &[Arc<ControllerRevision>]) -> Vec<&str> {
        revisions.iter().map(|one| one.metadata.name.as_deref().unwrap()).collect()
    }

    #[test]
    fn a_template_that_is_known_becomes_the_newest_again() {
        let history = [revision("c", 3, "three"), revision("a", 1, "one"), revision("b", 2, "two")];
        let (present, others) = look_up(&history, &json!("one"));
        assert_eq!(present, Present::Known { revision: history[1].clone(), number: 4, twins: vec![] });
        assert_eq!(names(&others), ["b", "c"]);
        let (present, _) = look_up(&history, &json!("three"));
        assert_eq!(present, Present::Known { revision: history[0].clone(), number: 3, twins: vec![] });
        assert_eq!(look_up(&history, &json!("four")).0, Present::New { number: 4 });
        assert_eq!(look_up(&[], &json!("one")).0, Present::New { number: 1 });
    }

    #[test]
    fn of_twins_the_newest_stays() {
        let history = [revision("a", 1, "one"), revision("b", 2, "one")];
        let (present, _) = look_up(&history, &json!("one"));
        assert_eq!(
            present,
            Present::Known { revision: history[1].clone(), number: 2, twins: vec![history[0].clone()] }
        );
    }

    #[test]
    fn the_oldest_go_first_and_the_living_stay() {
        let history = [revision("a", 1, "1"), revision("b", 2, "2"), revision("c", 3, "3"), revision("d", 4, "4")];
        assert_eq!(names(&surplus(&history, 2, &HashSet::from(["a"]))), ["b", "c"]);
        assert!(surplus(&history, 4, &HashSet::new()).is_empty());
        assert_eq!(names(&surplus(&history, 0, &HashSet::new())), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_patch_replaces_the_template() {
        assert_eq!(
            patch_of(&json!({"spec": {}})).unwrap(),
            json!({"spec": {"template": {"$patch": "replace", "spec": {}}}})
        );
    }
}
