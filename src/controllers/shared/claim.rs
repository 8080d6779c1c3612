//! Adoption and release: how objects with matching labels come to be controlled by an owner, and cease to be (upstream's
//! controller reference manager).

use std::sync::Arc;

use api::{LabelSelector, Reason};
use client::{Client, Failure, Key, Object, Patch};
use serde_json::{Value, json};

use crate::shared::owned::{controller_of, controller_reference, gone_is_fine, is_controlled_by};

/// An owner and what it selects.
pub struct Claim<'a, T> {
    pub client: &'a Client,
    pub owner: &'a T,
    pub selector: &'a LabelSelector,
    /// A finalizer that what is adopted gets, and what is released loses.
    pub finalizer: Option<&'static str>,
}

/// What an owner and an object are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Keeps,
    Adopts,
    Releases,
    Ignores,
}

impl<T: Object> Claim<'_, T> {
    /// Those of `candidates` that the owner controls, after it released what does not match any more and adopted what
    /// matches, has no controller and is `adoptable`. A failure with one object does not stop the others.
    pub async fn all<D: Object>(
        &self,
        candidates: Vec<Arc<D>>,
        adoptable: impl Fn(&D) -> bool,
    ) -> Result<Vec<Arc<D>>, Failure> {
        let mut owned = Vec::with_capacity(candidates.len());
        let mut failed = None;
        // Whether the owner still exists is asked once, and only if there is something to adopt.
        let mut may_adopt: Option<bool> = None;
        for object in candidates {
            let outcome = match self.relation(&*object, &adoptable) {
                Relation::Keeps => {
                    owned.push(object);
                    Ok(())
                }
                Relation::Ignores => Ok(()),
                Relation::Releases => self.release(&*object).await,
                Relation::Adopts => {
                    let may = match may_adopt {
                        Some(may) => may,
                        None => *may_adopt.insert(self.owner_lives().await?),
                    };
                    match if may { self.adopt(&*object).await } else { Ok(None) } {
                        Ok(adopted) => {
                            owned.extend(adopted.map(Arc::new));
                            Ok(())
                        }
                        Err(failure) => Err(failure),
                    }
                }
            };
            if let Err(failure) = outcome {
                failed.get_or_insert(failure);
            }
        }
        failed.map_or(Ok(owned), Err)
    }

    fn relation<D: Object>(&self, object: &D, adoptable: &impl Fn(&D) -> bool) -> Relation {
        let meta = object.metadata();
        let matches = self.selector.matches_labels(meta.labels.as_ref());
        let owner_goes = self.owner.metadata().deletion_timestamp.is_some();
        if controller_of(meta).is_some() {
            return match (is_controlled_by(meta, self.owner.metadata().uid.as_deref()), matches) {
                (true, true) => Relation::Keeps,
                (true, false) if !owner_goes => Relation::Releases,
                _ => Relation::Ignores,
            };
        }
        let adopts = matches && !owner_goes && meta.deletion_timestamp.is_none() && adoptable(object);
        if adopts { Relation::Adopts } else { Relation::Ignores }
    }

    /// Asks past the cache: an owner that goes must not gather what the garbage collector is about to free.
    async fn owner_lives(&self) -> Result<bool, Failure> {
        let Key { namespace, name } = Key::of(self.owner);
        let fresh = self.client.find::<T>(&namespace, &name).await?;
        Ok(fresh.is_some_and(|fresh| {
            fresh.metadata().uid == self.owner.metadata().uid && fresh.metadata().deletion_timestamp.is_none()
        }))
    }

    /// The object as it is now; `None` if it is gone.
    async fn adopt<D: Object>(&self, object: &D) -> Result<Option<D>, Failure> {
        let mut metadata = json!({
            "uid": object.metadata().uid,
            "ownerReferences": [controller_reference(self.owner)],
        });
        if let Some(finalizer) = self.finalizer {
            metadata["finalizers"] = json!([finalizer]);
        }
        match self.patch(object, metadata).await {
            Ok(adopted) => Ok(Some(adopted)),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn release<D: Object>(&self, object: &D) -> Result<(), Failure> {
        let mut metadata = json!({
            "uid": object.metadata().uid,
            "ownerReferences": [{"$patch": "delete", "uid": self.owner.metadata().uid}],
        });
        if let Some(finalizer) = self.finalizer {
            metadata["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
        }
        match self.patch::<D>(object, metadata).await {
            // Released already, or another object under the same name.
            Err(failure) if failure.reason == Reason::Invalid => Ok(()),
            outcome => gone_is_fine(outcome),
        }
    }

    async fn patch<D: Object>(&self, object: &D, metadata: Value) -> Result<D, Failure> {
        let Key { namespace, name } = Key::of(object);
        self.client.patch::<D>(&namespace, &name, Patch::Strategic(json!({ "metadata": metadata }))).await
    }
}
