//! How the store is doing.

/// How the store is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub revision: u64,
    /// Reads and watches before this revision are refused.
    pub compacted: u64,
    /// Keys that exist.
    pub keys: usize,
    /// Bytes of the keys and values that exist.
    pub bytes: u64,
    /// Bytes of past versions kept until compaction.
    pub history_bytes: u64,
    /// Bytes on disk: log, snapshots and materialised state.
    pub disk_bytes: u64,
    /// This server leads the Raft group.
    pub leader: bool,
    /// Why writes are refused, if they are.
    pub read_only: Option<ReadOnly>,
    /// How often something on the disk was found not to be what was written, since the store was opened.
    pub damage_found: u64,
}

/// Why writes are refused while reads go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOnly {
    /// The disk has no room for the log. Writes are taken again as soon as it has.
    DiskFull,
    /// Keys and values exceed `Config::quota_bytes`. Deletions and compaction are still taken.
    QuotaExceeded,
}
