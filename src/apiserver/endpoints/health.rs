//! `/healthz`, `/livez`, `/readyz`: whether the server lives and answers, with the checks behind it, under upstream's
//! names. A check's reason is told only to those who ask for that check.

use std::fmt::Write;

use http::Response;
use http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};

use crate::http::body::Body;
use crate::http::respond;
use crate::request;
use crate::server::ApiServer;

struct Check {
    name: &'static str,
    /// Only for `/readyz`.
    readiness: bool,
    /// The error is the reason.
    found: Result<(), String>,
}

/// What is done before the server is ready (upstream: post-start hooks).
const AT_START: [&str; 7] = [
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
];

fn checks(server: &ApiServer) -> Vec<Check> {
    let check = |name, readiness, found| Check { name, readiness, found };
    let or = |good: bool, reason: &str| if good { Ok(()) } else { Err(reason.to_owned()) };
    let store = || or(server.store().status().leader, "the store does not lead its group");
    let mut checks = vec![
        check("ping", false, Ok(())),
        check("log", false, Ok(())),
        check("etcd", false, store()),
        check("etcd-readiness", true, store()),
        check("informer-sync", true, or(server.started(), "1 informers not started yet: [watch cache]")),
    ];
    if let Some(troubles) = server.storage().at_rest().health() {
        checks.push(check("kms-providers", false, or(troubles.is_empty(), &troubles.join(", "))));
    }
    checks.extend(AT_START.map(|name| check(name, false, or(server.started(), "not finished"))));
    checks.push(check("shutdown", true, or(!server.stops(), "process is shutting down")));
    checks
}

/// `parts` is the path: the endpoint and, for one check alone, its name.
pub fn answer(server: &ApiServer, parts: &[&str], query: Option<&str>) -> Response<Body> {
    let (endpoint, wanted) = match parts.split_first() {
        Some((endpoint, rest)) => (*endpoint, rest.join("/")),
        None => ("healthz", String::new()),
    };
    let checks = checks(server).into_iter().filter(|check| endpoint == "readyz" || !check.readiness);
    let checks: Vec<Check> = checks.collect();
    for check in &checks {
        let (status, value) = if check.found.is_ok() { ("success", 1) } else { ("error", 0) };
        let metrics = server.metrics();
        metrics.health_results.get([check.name, status, endpoint]).figures.inc();
        metrics.health.get([check.name, endpoint]).figures.set(value);
    }
    let mut response = render(endpoint, &wanted, query.unwrap_or_default(), checks);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn render(endpoint: &str, wanted: &str, query: &str, checks: Vec<Check>) -> Response<Body> {
    if !wanted.is_empty() {
        return match checks.into_iter().find(|check| check.name == wanted).map(|check| check.found) {
            Some(Ok(())) => respond::text(200, "ok"),
            Some(Err(reason)) => respond::text(500, format!("internal server error: {reason}\n")),
            None => respond::text(404, "404 page not found\n"),
        };
    }
    let parameters = request::query(query);
    let verbose = parameters.iter().any(|(key, _)| key == "verbose");
    let mut excluded: Vec<&str> =
        parameters.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_ref()).collect();
    let mut lines = String::new();
    let mut failed = String::new();
    // Writing to a string does not fail.
    for check in &checks {
        let _ = match &check.found {
            _ if excluded.contains(&check.name) => {
                excluded.retain(|name| *name != check.name);
                writeln!(lines, "[+]{} excluded: ok", check.name)
            }
            Ok(()) => writeln!(lines, "[+]{} ok", check.name),
            Err(reason) => {
                let _ = write!(failed, "{}: {reason}; ", check.name);
                writeln!(lines, "[-]{} failed: reason withheld", check.name)
            }
        };
    }
    if !excluded.is_empty() {
        excluded.sort_unstable();
        excluded.dedup();
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(",");
        let _ = writeln!(lines, "warn: some health checks cannot be excluded: no matches for {names}");
    }
    if !failed.is_empty() {
        tracing::warn!(endpoint, failed, "health check failed");
        let _ = writeln!(lines, "{endpoint} check failed");
        return respond::text(500, lines);
    }
    if !verbose {
        return respond::text(200, "ok");
    }
    let _ = writeln!(lines, "{endpoint} check passed");
    respond::text(200, lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn show(wanted: &str, query: &str, broken: bool) -> (u16, String) {
        let found = |broken: bool| if broken { Err("it hurts".to_owned()) } else { Ok(()) };
        let checks = vec![
            Check { name: "ping", readiness: false, found: Ok(()) },
            Check { name: "etcd", readiness: false, found: found(broken) },
        ];
        let response = render("livez", wanted, query, checks);
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn checks_are_shown_as_upstream_shows_them() {
        for (wanted, query, broken, code, body) in [
            ("", "", false, 200, "ok"),
            ("", "verbose", false, 200, "[+]ping ok\n[+]etcd ok\nlivez check passed\n"),
            ("", "", true, 500, "[+]ping ok\n[-]etcd failed: reason withheld\nlivez check failed\n"),
            ("", "exclude=etcd", true, 200, "ok"),
            ("", "verbose=1&exclude=etcd", true, 200, "[+]ping ok\n[+]etcd excluded: ok\nlivez check passed\n"),
            (
                "",
                "verbose&exclude=nothing",
                false,
                200,
                "[+]ping ok\n[+]etcd ok\nwarn: some health checks cannot be excluded: no matches for \"nothing\"\n\
                 livez check passed\n",
            ),
            ("etcd", "", false, 200, "ok"),
            ("etcd", "", true, 500, "internal server error: it hurts\n"),
            ("none", "", false, 404, "404 page not found\n"),
        ] {
            assert_eq!(show(wanted, query, broken).await, (code, body.to_owned()), "{wanted} {query}");
        }
    }
}
