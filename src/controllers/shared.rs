//! What several controllers need.
//!
//! - [`owned`] says who controls whom, [`claim`] adopts and releases.
//! - [`pod_control`] makes and deletes pods and says so in Events.
//! - [`recent`] and [`written`] remember what was done and is not in the cache yet.
//! - [`history`] keeps ControllerRevisions, [`hash`] names what belongs to one template.
//! - [`pods`] and [`select`] are questions to pods and selectors, [`served`] is which resources there are.

pub mod claim;
pub mod hash;
pub mod history;
pub mod owned;
pub mod pod_control;
pub mod pods;
pub mod recent;
pub mod select;
pub mod served;
pub mod written;
