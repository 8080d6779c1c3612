//! The Lease service.

use futures::StreamExt;
use futures::stream::BoxStream;
use store::Error;
use tonic::{Request, Response, Status, Streaming};

use crate::v3::lease_server::Lease;
use crate::{Served, errors, v3};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Lease for Served {
    type LeaseKeepAliveStream = BoxStream<'static, Result<v3::LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(&self, request: Request<v3::LeaseGrantRequest>) -> Answer<v3::LeaseGrantResponse> {
        let request = request.into_inner();
        let id = (request.id != 0).then_some(request.id);
        let lease = self.store.lease_grant(id, request.ttl).await.map_err(|error| errors::of_store(&error))?;
        Ok(Response::new(v3::LeaseGrantResponse {
            header: self.header_now(),
            id: lease.id,
            ttl: lease.ttl_seconds,
            error: String::new(),
        }))
    }

    async fn lease_revoke(&self, request: Request<v3::LeaseRevokeRequest>) -> Answer<v3::LeaseRevokeResponse> {
        let revoked = self.store.lease_revoke(request.into_inner().id).await;
        let revision = revoked.map_err(|error| errors::of_store(&error))?;
        Ok(Response::new(v3::LeaseRevokeResponse { header: self.header(revision) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<v3::LeaseKeepAliveRequest>>,
    ) -> Answer<Self::LeaseKeepAliveStream> {
        let served = self.clone();
        let answers = request.into_inner().then(move |request| {
            let served = served.clone();
            async move {
                let id = request?.id;
                let ttl = match served.store.lease_keep_alive(id).await {
                    Ok(seconds) => seconds,
                    // The way to say that there is none.
                    Err(Error::LeaseNotFound { .. }) => 0,
                    Err(error) => return Err(errors::of_store(&error)),
                };
                Ok(v3::LeaseKeepAliveResponse { header: served.header_now(), id, ttl })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<v3::LeaseTimeToLiveRequest>,
    ) -> Answer<v3::LeaseTimeToLiveResponse> {
        let v3::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let header = self.header_now();
        Ok(Response::new(match self.store.lease_time_to_live(id, keys).await {
            Ok(status) => v3::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: status.remaining_seconds,
                granted_ttl: status.granted_seconds,
                keys: status.keys,
            },
            Err(Error::LeaseNotFound { .. }) => {
                v3::LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() }
            }
            Err(error) => return Err(errors::of_store(&error)),
        }))
    }

    async fn lease_leases(&self, _request: Request<v3::LeaseLeasesRequest>) -> Answer<v3::LeaseLeasesResponse> {
        let leases = self.store.leases().into_iter().map(|lease| v3::LeaseStatus { id: lease.id }).collect();
        Ok(Response::new(v3::LeaseLeasesResponse { header: self.header_now(), leases }))
    }
}
