//! The Cluster service. Servers join, vote and find each other by themselves; people list and remove them.

use store::{MemberRole, MemberStatus};
use tonic::{Request, Response, Status};

use crate::v3::cluster_server::Cluster;
use crate::{Served, errors, v3};

type Answer<T> = Result<Response<T>, Status>;

impl Served {
    pub fn members(&self) -> Vec<v3::Member> {
        self.store.members().into_iter().map(|member| self.member(member)).collect()
    }

    fn member(&self, member: MemberStatus) -> v3::Member {
        let here = member.id == self.store.id();
        v3::Member {
            id: member.id,
            name: member.name,
            peer_ur_ls: (!member.address.is_empty())
                .then(|| format!("https://{}", member.address))
                .into_iter()
                .collect(),
            // Others serve this API on their own loopback address.
            client_ur_ls: here.then(|| self.about.client_url.clone()).into_iter().collect(),
            is_learner: member.role == MemberRole::Learner,
        }
    }
}

#[tonic::async_trait]
impl Cluster for Served {
    async fn member_add(&self, _request: Request<v3::MemberAddRequest>) -> Answer<v3::MemberAddResponse> {
        Err(Status::unimplemented("servers add themselves to the cluster when they are started"))
    }

    async fn member_remove(&self, request: Request<v3::MemberRemoveRequest>) -> Answer<v3::MemberRemoveResponse> {
        let id = request.into_inner().id;
        if !self.store.members().iter().any(|member| member.id == id) {
            return Err(Status::not_found("etcdserver: member not found"));
        }
        self.store.remove_member(id).await.map_err(|error| errors::of_store(&error))?;
        Ok(Response::new(v3::MemberRemoveResponse { header: self.header_now(), members: self.members() }))
    }

    async fn member_update(&self, _request: Request<v3::MemberUpdateRequest>) -> Answer<v3::MemberUpdateResponse> {
        Err(Status::unimplemented("servers say themselves where they are when they are started"))
    }

    async fn member_list(&self, request: Request<v3::MemberListRequest>) -> Answer<v3::MemberListResponse> {
        if request.into_inner().linearizable {
            self.store.read_index().await.map_err(|error| errors::of_store(&error))?;
        }
        Ok(Response::new(v3::MemberListResponse { header: self.header_now(), members: self.members() }))
    }

    async fn member_promote(&self, request: Request<v3::MemberPromoteRequest>) -> Answer<v3::MemberPromoteResponse> {
        let id = request.into_inner().id;
        let member = self.store.members().into_iter().find(|member| member.id == id);
        Err(match member.map(|member| member.role) {
            None => Status::not_found("etcdserver: member not found"),
            // It votes as soon as it has caught up.
            Some(MemberRole::Learner) => Status::failed_precondition(
                "etcdserver: can only promote a learner member which is in sync with leader",
            ),
            Some(MemberRole::Voter | MemberRole::Witness) => {
                Status::failed_precondition("etcdserver: can only promote a learner member")
            }
        })
    }
}
