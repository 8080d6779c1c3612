//! The Maintenance service.

use bytes::Bytes;
use store::{KeyRange, MemberRole, Range};
use tonic::{Request, Response, Status};

use crate::v3::maintenance_server::Maintenance;
use crate::{Served, convert, errors, v3};

/// The version whose behaviour clients may count on: they ask before they use what older ones did not have.
const VERSION: &str = "3.6.0";
const STORAGE_VERSION: &str = "3.6.0";

type Answer<T> = Result<Response<T>, Status>;

impl Served {
    /// A hash of all keys that exist at a revision: equal on members that agree.
    fn hash(&self, revision: Option<u64>) -> Result<(u32, u64), Status> {
        let range = Range { revision, ..Range::all(KeyRange::prefix(Bytes::new())) };
        let outcome = self.store.range(&range).map_err(|error| errors::of_store(&error))?;
        let mut crc = crc32fast::Hasher::new();
        for kv in &outcome.kvs {
            for number in [kv.create_revision, kv.mod_revision, kv.version, kv.key.len() as u64] {
                crc.update(&number.to_le_bytes());
            }
            crc.update(&kv.key);
            crc.update(&kv.value);
        }
        Ok((crc.finalize(), revision.unwrap_or(outcome.revision)))
    }

    fn alarms(&self) -> Vec<v3::AlarmMember> {
        let full = self.store.status().read_only.is_some();
        let alarm = v3::AlarmMember { member_id: self.store.id(), alarm: v3::AlarmType::Nospace.into() };
        full.then_some(alarm).into_iter().collect()
    }
}

#[tonic::async_trait]
impl Maintenance for Served {
    async fn alarm(&self, request: Request<v3::AlarmRequest>) -> Answer<v3::AlarmResponse> {
        let request = request.into_inner();
        if request.action == i32::from(v3::alarm_request::AlarmAction::Activate) {
            return Err(Status::unimplemented("alarms are raised by the store"));
        }
        // One that is disarmed stays as long as its cause does; the store goes on by itself when that is gone.
        Ok(Response::new(v3::AlarmResponse { header: self.header_now(), alarms: self.alarms() }))
    }

    async fn status(&self, _request: Request<v3::StatusRequest>) -> Answer<v3::StatusResponse> {
        let (status, leadership) = (self.store.status(), *self.store.leading().borrow());
        let here = self.store.members().into_iter().find(|member| member.id == self.store.id());
        let index = here.as_ref().and_then(|member| member.matched).unwrap_or(0);
        let no_leader = leadership.leader.is_none().then(|| "etcdserver: no leader".to_owned());
        Ok(Response::new(v3::StatusResponse {
            header: self.header(status.revision),
            version: VERSION.to_owned(),
            db_size: convert::signed(status.disk_bytes),
            leader: leadership.leader.unwrap_or(0),
            raft_index: index,
            raft_term: leadership.term,
            raft_applied_index: index,
            errors: no_leader.into_iter().chain(status.read_only.map(|_| "NOSPACE".to_owned())).collect(),
            db_size_in_use: convert::signed(status.bytes),
            is_learner: here.is_some_and(|member| member.role == MemberRole::Learner),
            storage_version: STORAGE_VERSION.to_owned(),
            db_size_quota: convert::signed(self.about.quota_bytes),
        }))
    }

    async fn defragment(&self, _request: Request<v3::DefragmentRequest>) -> Answer<v3::DefragmentResponse> {
        // Nothing here is fragmented: snapshots are written whole, and the log behind them goes.
        Ok(Response::new(v3::DefragmentResponse { header: self.header_now() }))
    }

    async fn hash(&self, _request: Request<v3::HashRequest>) -> Answer<v3::HashResponse> {
        let (hash, revision) = Served::hash(self, None)?;
        Ok(Response::new(v3::HashResponse { header: self.header(revision), hash }))
    }

    async fn hash_kv(&self, request: Request<v3::HashKvRequest>) -> Answer<v3::HashKvResponse> {
        let revision = request.into_inner().revision;
        let (hash, revision) = Served::hash(self, u64::try_from(revision).ok().filter(|revision| *revision > 0))?;
        Ok(Response::new(v3::HashKvResponse {
            header: self.header_now(),
            hash,
            compact_revision: convert::signed(self.store.status().compacted),
            hash_revision: convert::signed(revision),
        }))
    }

    async fn move_leader(&self, request: Request<v3::MoveLeaderRequest>) -> Answer<v3::MoveLeaderResponse> {
        let target = request.into_inner().target_id;
        if !self.store.leading().borrow().here {
            return Err(Status::failed_precondition("etcdserver: not leader"));
        }
        if target == self.store.id() {
            return Ok(Response::new(v3::MoveLeaderResponse { header: self.header_now() }));
        }
        let members = self.store.members();
        if !members.iter().any(|member| member.id == target && member.role == MemberRole::Voter) {
            return Err(Status::failed_precondition("etcdserver: bad leader transferee"));
        }
        // The member that is ahead of the others takes over, which need not be the one that was asked for.
        self.store.hand_over().await;
        Ok(Response::new(v3::MoveLeaderResponse { header: self.header_now() }))
    }
}
