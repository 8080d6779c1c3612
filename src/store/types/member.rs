//! Members of the group, as they are listed.

/// A member's number, drawn at random when its directory is made (etcd: `member ID`).
pub type MemberId = u64;

/// A member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    pub id: MemberId,
    pub name: String,
    /// Where others reach it, as the membership says.
    pub address: String,
    pub role: MemberRole,
    /// It leads.
    pub leader: bool,
    /// Index of the last entry of the log that it is known to have; only the leader knows.
    pub matched: Option<u64>,
}

/// What a member is to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    Voter,
    /// Gets the log and does not vote yet.
    Learner,
    /// Votes and keeps the log; it has no state and never leads.
    Witness,
}
