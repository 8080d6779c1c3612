//! Requests for aggregated servers: passed on as they are, in the user's name.

use api::{Failure, Reason};
use futures::StreamExt;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Registered, front_proxy};
use crate::flowcontrol::Place;
use crate::http::body::Body;
use crate::http::respond;
use crate::identity::Identity;
use crate::node;
use crate::server::ApiServer;

/// Headers that concern one connection alone.
const OF_CONNECTION: [HeaderName; 5] = [CONNECTION, UPGRADE, TRANSFER_ENCODING, CONTENT_LENGTH, HOST];

/// Answers with what the aggregated server answers. What lasts has a place; the rest must begin to be answered within
/// the time that requests have.
pub async fn forward(
    server: &ApiServer,
    user: &Identity,
    registered: &Registered,
    mut request: Request<Incoming>,
    place: Option<Place>,
) -> Result<Response<Body>, Failure> {
    let unavailable = || respond::text(503, "service unavailable\n");
    let Some(remote) = registered.remote.as_ref().filter(|remote| remote.available) else { return Ok(unavailable()) };
    let endpoint = match &remote.endpoint {
        Ok(endpoint) => endpoint,
        Err(error) => return Ok(respond::text(500, format!("{error}\n"))),
    };
    front_proxy::name_user(request.headers_mut(), user)?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    if request.headers().contains_key(UPGRADE) {
        let stream = match server.caller().connect(endpoint).await {
            Ok(stream) => stream,
            Err(error) => return Ok(failed(&error)),
        };
        let place = match place {
            Some(place) => place,
            None => {
                let figures = server.metrics().requests.of_path(request.method(), request.uri().path());
                server.flow().place(None, figures)?
            }
        };
        let method = request.method().clone();
        return node::exchange(stream, &endpoint.authority(), method, &path, request, place).await;
    }
    let (parts, body) = request.into_parts();
    let mut outgoing = Request::new(body.map_err(Into::into).boxed_unsync());
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() = path.parse().map_err(|_| Failure::bad_request("the path is no URI"))?;
    copy(&parts.headers, outgoing.headers_mut());
    let sending = server.caller().send(endpoint, outgoing);
    let answer = match place {
        Some(_) => sending.await,
        None => {
            let answer = tokio::time::timeout(server.limits().request_max, sending).await;
            answer.map_err(|_| Failure::new(Reason::Timeout, "the request did not end within its time"))?
        }
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Ok(failed(&error)),
    };
    let (parts, body) = answer.into_parts();
    let pieces = body.into_data_stream().scan(place, |_held, piece| {
        std::future::ready(match piece {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::debug!(%error, "answer of an aggregated server");
                None
            }
        })
    });
    let mut response = Response::new(Body::stream(pieces));
    *response.status_mut() = parts.status;
    copy(&parts.headers, response.headers_mut());
    Ok(response)
}

fn failed(error: &crate::webhook::CallError) -> Response<Body> {
    respond::text(503, format!("error trying to reach service: {}\n", error.cause))
}

fn copy(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        let stays = OF_CONNECTION.contains(name)
            || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "te" | "trailer");
        if !stays {
            to.append(name, value.clone());
        }
    }
}
