//! Who leads, as this member knows it.

use super::Id;

/// Who leads the group, as this member knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Raft's term. Who leads in a higher one leads after those in lower ones.
    pub term: u64,
    pub leader: Option<Id>,
    /// It is this member, and a majority has followed it within the last moments. What must run on one member only
    /// runs while this is so.
    pub here: bool,
}
