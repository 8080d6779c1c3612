//! `/healthz`, `/livez`, `/readyz`: whether the server lives and answers, with the checks behind it.

use bytes::Bytes;
use http::Response;

use crate::http::body::Body;
use crate::http::respond;
use crate::request;
use crate::server::ApiServer;

struct Check {
    name: &'static str,
    /// Only for `/readyz`.
    readiness: bool,
    good: bool,
}

fn checks(server: &ApiServer) -> Vec<Check> {
    let status = server.store().status();
    let check = |name, readiness, good| Check { name, readiness, good };
    vec![
        check("ping", false, true),
        check("log", false, true),
        check("etcd", false, status.leader || status.revision > 0),
        check("etcd-readiness", true, status.leader || status.revision > 0),
        check("informer-sync", true, server.ready()),
        check("poststarthook/rbac/bootstrap-roles", false, server.ready()),
        check("shutdown", true, !server.shutdown().is_cancelled()),
    ]
}

/// `parts` is the path: the endpoint and, for one check alone, its name.
pub fn answer(server: &ApiServer, parts: &[&str], query: Option<&str>) -> Response<Body> {
    let (endpoint, wanted) = match parts.split_first() {
        Some((endpoint, rest)) => (*endpoint, rest.join("/")),
        None => ("healthz", String::new()),
    };
    let parameters = request::query(query.unwrap_or_default());
    let verbose = parameters.iter().any(|(key, _)| key == "verbose");
    let excluded: Vec<&str> =
        parameters.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_ref()).collect();
    let checks: Vec<Check> =
        checks(server).into_iter().filter(|check| endpoint == "readyz" || !check.readiness).collect();
    if !wanted.is_empty() {
        return match checks.iter().find(|check| check.name == wanted) {
            Some(check) if check.good => respond::text(200, "ok"),
            Some(_) => respond::text(500, "internal server error: not ok\n"),
            None => respond::text(404, "404 page not found\n"),
        };
    }
    let mut lines = String::new();
    let mut good = true;
    for check in &checks {
        if excluded.contains(&check.name) {
            lines.push_str(&format!("[+]{} excluded: ok\n", check.name));
        } else if check.good {
            lines.push_str(&format!("[+]{} ok\n", check.name));
        } else {
            good = false;
            lines.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
        }
    }
    let code = if good { 200 } else { 500 };
    if good && !verbose {
        return respond::text(code, "ok");
    }
    lines.push_str(&format!("{endpoint} check {}\n", if good { "passed" } else { "failed" }));
    respond::text(code, Bytes::from(lines))
}
