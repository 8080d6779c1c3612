//! What must hold whatever happens, one file for each.

pub(super) mod complete;
pub(super) mod leaders;
pub(super) mod leases;
pub(super) mod linearizable;
pub(super) mod same_state;
pub(super) mod watches;
