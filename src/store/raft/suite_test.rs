//! openraft's own tests of a storage.

use std::sync::Arc;
use std::time::Duration;

use openraft::testing::{StoreBuilder, Suite};

use super::{Applied, Due, LogStore, Machine, StorageError, TypeConfig};
use crate::disk::RealDisk;
use crate::log::{Log, Options, Runs};
use crate::snapshot::Snapshots;
use crate::state::State;
use crate::watch::Watched;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk);
        let options = Options {
            dir: dir.path().join("log"),
            segment_bytes: 1 << 16,
            relaxed_sync_after: Duration::from_secs(1),
            runs: Runs::default(),
        };
        let log = Log::open(disk.clone(), options, task::Shutdown::new()).unwrap();
        let snapshots = Arc::new(Snapshots::open(disk, dir.path().join("snapshot")).unwrap());
        let watched = Watched::new(State::default(), Applied::default());
        let machine = Machine::new(watched, snapshots, log.clone(), Due::default(), false);
        Ok((dir, LogStore::new(log), machine))
    }
}

#[test]
fn storage_is_what_openraft_expects() {
    Suite::test_all(Builder).unwrap();
}
