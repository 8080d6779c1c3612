//! What is recorded of a request over HTTPS: from its head to its end.

use api::{Failure, Reason};
use http::Request;
use hyper::body::Incoming;

use super::{Asked, Class, Seen, method_verb};
use crate::audit::{self, Recording};
use crate::failures;
use crate::identity::Identity;
use crate::server::ApiServer;

/// Begins what is recorded of the request, if anything is.
pub fn open(
    server: &ApiServer,
    user: Option<&Identity>,
    asked: Option<&Asked>,
    request: &Request<Incoming>,
    seen: &Seen,
) -> Option<Recording> {
    let audit = server.audit()?;
    let (headers, uri) = (request.headers(), request.uri());
    let call = asked.and_then(|asked| asked.resource.as_ref()).map(|(_, call)| call);
    let audit_id = seen.audit_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
    audit.begin(audit::Opening {
        user,
        verb: call.map_or_else(|| method_verb(request.method()), |call| call.verb.as_str()),
        call,
        path: uri.path(),
        audit_id: audit_id.to_owned(),
        request_uri: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        source_ips: audit::source_ips(headers, seen.remote),
        user_agent: audit::user_agent(headers),
        received: server.now(),
        long_running: asked.is_some_and(|asked| asked.class() != Class::Short),
    })
}

/// How a request ended.
pub enum End {
    Answered(u16),
    Failed(Failure),
    Panicked,
}

pub async fn close(recording: &Recording, end: End) {
    match end {
        End::Answered(code) => recording.status(code, None),
        End::Failed(failure) if failure.reason == Reason::Unauthorized => {
            return recording.unidentified(&failure).await;
        }
        End::Failed(failure) => recording.status(failure.code, Some(&failure)),
        End::Panicked => return recording.panicked(&failures::panicked()).await,
    }
    recording.answered().await;
}
