//! Paths that are no resources: discovery, OpenAPI, health, version, keys.

mod descriptions;
mod discovery;
mod health;
mod metrics;
mod openapi;

pub use openapi::OpenApi;

use api::Failure;
use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::json;

use crate::failures;
use crate::http::body::Body;
use crate::http::respond;
use crate::server::ApiServer;

/// What there is beside discovery and health.
const KNOWN: [&str; 6] = ["version", "metrics", "debug", "openapi", ".well-known", "openid"];

pub async fn answer<B>(server: &ApiServer, request: &Request<B>) -> Result<Response<Body>, Failure> {
    let path = request.uri().path();
    let headers = request.headers();
    let trimmed = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let parts: Vec<&str> = trimmed.split('/').skip(1).collect();
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    match parts.as_slice() {
        // These are asked in any way; upstream does not look at the method.
        ["" | "apis"] | ["apis", _] | ["healthz" | "livez" | "readyz", ..] => {}
        ["api" | "apis", ..] if !read => {
            discovery::answer(server, &parts, headers)?;
            return Err(failures::no_such_verb());
        }
        [known, ..] if !read && KNOWN.contains(known) => return Err(failures::no_such_verb()),
        _ => {}
    }
    match parts.as_slice() {
        [""] => Ok(respond::json(200, &json!({"paths": discovery::paths(server)}))),
        ["api" | "apis", ..] => {
            let response = discovery::answer(server, &parts, headers)?;
            Ok(respond::compressed(response, headers))
        }
        ["version"] => Ok(respond::json(200, &version(server))),
        ["healthz" | "livez" | "readyz", ..] => Ok(health::answer(server, &parts, request.uri().query())),
        ["metrics", "slis"] => Ok(metrics::slis(server, headers)),
        ["metrics"] => Ok(metrics::answer(server, headers)),
        ["debug", "api_priority_and_fairness", "dump_priority_levels"] => {
            Ok(respond::text(200, server.flow().dump_levels()))
        }
        ["debug", "api_priority_and_fairness", "dump_queues"] => Ok(respond::text(200, server.flow().dump_queues())),
        ["debug", "api_priority_and_fairness", "dump_requests"] => {
            let parameters = crate::request::query(request.uri().query().unwrap_or_default());
            let details = parameters.iter().any(|(key, value)| key == "includeRequestDetails" && !value.is_empty());
            Ok(respond::text(200, server.flow().dump_requests(details)))
        }
        ["openapi", ..] => openapi::answer(server, &parts, headers).await,
        [".well-known", "openid-configuration"] => {
            let keys = server.authenticator().tokens().keys();
            let config = server.config();
            let own =
                || format!("https://{}/openid/v1/jwks", authority(config.advertise_address, config.advertise_port));
            let document = json!({
                "issuer": keys.issuer(),
                "jwks_uri": config.service_accounts.jwks_uri.clone().unwrap_or_else(own),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": keys.algorithms(),
            });
            Ok(respond::json(200, &document))
        }
        ["openid", "v1", "jwks"] => {
            let keys = serde_json::to_vec(server.authenticator().tokens().keys().jwks()).map_err(Failure::internal)?;
            Ok(respond::bytes(200, "application/jwk-set+json", Bytes::from(keys)))
        }
        _ => Ok(respond::text(404, "404 page not found\n")),
    }
}

fn authority(address: std::net::IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// `version.Info`.
fn version(server: &ApiServer) -> serde_json::Value {
    let git_version = &server.config().git_version;
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": git_version, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("{}/{arch}", std::env::consts::OS),
    })
}

#[cfg(test)]
mod tests;
