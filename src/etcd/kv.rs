//! The KV service.

use store::{Error, Op, OpOutcome, Txn};
use tonic::{Request, Response, Status};

use crate::v3::kv_server::Kv;
use crate::{Served, convert, errors, v3};

type Answer<T> = Result<Response<T>, Status>;

impl Served {
    /// A transaction of one operation without conditions.
    async fn one(&self, op: Op) -> Result<(OpOutcome, u64), Status> {
        let txn = Txn { success: vec![op], ..Txn::default() };
        let outcome = self.store.txn(txn).await.map_err(|error| errors::of_store(&error))?;
        let first = outcome.responses.into_iter().next();
        Ok((first.ok_or_else(|| errors::of_store(&Error::Unknown))?, outcome.revision))
    }
}

#[tonic::async_trait]
impl Kv for Served {
    async fn range(&self, request: Request<v3::RangeRequest>) -> Answer<v3::RangeResponse> {
        let request = request.into_inner();
        let serializable = request.serializable;
        let range = convert::range(request)?;
        if !serializable {
            self.store.read_index().await.map_err(|error| errors::of_store(&error))?;
        }
        let outcome = self.store.range(&range).map_err(|error| errors::of_store(&error))?;
        let revision = outcome.revision;
        Ok(Response::new(self.range_response(outcome, revision)))
    }

    async fn put(&self, request: Request<v3::PutRequest>) -> Answer<v3::PutResponse> {
        match self.one(Op::Put(convert::put(request.into_inner()))).await? {
            (OpOutcome::Put { prev }, revision) => Ok(Response::new(self.put_response(prev, revision))),
            _ => Err(errors::of_store(&Error::Unknown)),
        }
    }

    async fn delete_range(&self, request: Request<v3::DeleteRangeRequest>) -> Answer<v3::DeleteRangeResponse> {
        match self.one(Op::Delete(convert::delete(request.into_inner())?)).await? {
            (OpOutcome::Delete { deleted, prev }, revision) => {
                Ok(Response::new(self.delete_response(deleted, prev, revision)))
            }
            _ => Err(errors::of_store(&Error::Unknown)),
        }
    }

    async fn txn(&self, request: Request<v3::TxnRequest>) -> Answer<v3::TxnResponse> {
        let txn = convert::txn(request.into_inner())?;
        let outcome = self.store.txn(txn).await.map_err(|error| errors::of_store(&error))?;
        Ok(Response::new(self.txn_response(outcome)))
    }

    async fn compact(&self, request: Request<v3::CompactionRequest>) -> Answer<v3::CompactionResponse> {
        // A compaction is applied to everything there is at once, so `physical` asks for nothing more.
        let revision = u64::try_from(request.into_inner().revision).unwrap_or(0);
        self.store.compact(revision).await.map_err(|error| errors::of_store(&error))?;
        Ok(Response::new(v3::CompactionResponse { header: self.header_now() }))
    }
}
