//! `/metrics`: figures in Prometheus' text form or OpenMetrics, under upstream's names where upstream has them.

use std::sync::Arc;

use api::{Fields, Row};
use http::header::ACCEPT;
use http::{HeaderMap, Response};

use crate::cache::{ResourceCache, WINDOW_EVENTS_MAX};
use crate::http::body::Body;
use crate::http::respond;
use crate::metrics::{Buckets, DEFAULT_SECONDS, Histogram, Kind, Text, write_features, write_process};
use crate::server::ApiServer;

/// Everything that is counted.
pub fn answer(server: &ApiServer, headers: &HeaderMap) -> Response<Body> {
    let mut out = Text::new(wants_open_metrics(headers));
    let metrics = server.metrics();
    server.authenticator().write_figures(&mut out);
    server.authorizer().write_figures(&mut out);
    metrics.requests.write(&mut out);
    metrics.lists.write(&mut out);
    let help = "[ALPHA] TLS handshakes that did not come to an end.";
    out.single("apiserver_tls_handshake_errors_total", Kind::Counter, help, metrics.handshake_errors.get());
    let name = "apiserver_admission_step_admission_duration_seconds";
    let help = "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API resource \
                and step type (validate or admit).";
    out.family(name, Kind::Histogram, help);
    for set in metrics.admission.all() {
        let [operation, rejected, step] = &set.values;
        out.histogram(name, &[("operation", operation), ("rejected", rejected), ("type", step)], &set.figures);
    }
    let name = "apiserver_requested_deprecated_apis";
    out.family(name, Kind::Gauge, "[STABLE] What was asked for although it is deprecated, and which release ends it.");
    for set in metrics.deprecated.all() {
        let [group, version, resource, subresource, removed] = &set.values;
        let labels = [
            ("group", group.as_ref()),
            ("removed_release", removed),
            ("resource", resource),
            ("subresource", subresource),
            ("version", version),
        ];
        out.sample(name, &labels, set.figures.get());
    }
    server.flow().write_figures(&mut out);
    if let Some(audit) = server.audit() {
        audit.write_figures(&mut out);
    }
    server.admission().write_figures(&mut out);
    server.aggregator().write_figures(&mut out);
    expressions(&mut out);
    storage(server, &mut out);
    operations(server, &mut out);
    server.storage().at_rest().write_figures(&mut out);
    write_process(&mut out);
    write_features(&mut out);
    build(server, &mut out);
    let help = "Panics of tasks since the process started.";
    out.single("cluster_task_panics_total", Kind::Counter, help, task::panics());
    let content_type = out.content_type();
    respond::bytes(200, content_type, out.finish().into())
}

/// `/metrics/slis`: how health checks went (upstream: KEP-3466).
pub fn slis(server: &ApiServer, headers: &HeaderMap) -> Response<Body> {
    let mut out = Text::new(wants_open_metrics(headers));
    let name = "kubernetes_healthcheck";
    let help = "[STABLE] This metric records the result of a single healthcheck.";
    out.family(name, Kind::Gauge, help);
    for set in server.metrics().health.all() {
        let [check, endpoint] = &set.values;
        out.sample(name, &[("name", check), ("type", endpoint)], set.figures.get());
    }
    let name = "kubernetes_healthchecks_total";
    let help = "[STABLE] This metric records the results of all healthcheck.";
    out.family(name, Kind::Counter, help);
    for set in server.metrics().health_results.all() {
        let [check, status, endpoint] = &set.values;
        out.sample(name, &[("name", check), ("status", status), ("type", endpoint)], set.figures.get());
    }
    let content_type = out.content_type();
    respond::bytes(200, content_type, out.finish().into())
}

/// The store's operations, under the names that upstream has for etcd's.
fn operations(server: &ApiServer, out: &mut Text) {
    let sets = server.metrics().storage.all();
    let labels = |values: &[Box<str>; 3]| {
        let [operation, group, resource] = values.clone();
        [("group", group), ("operation", operation), ("resource", resource)]
    };
    let mut each = |name: &str, kind: Kind, help: &str| {
        out.family(name, kind, help);
        for set in &sets {
            let labels = labels(&set.values);
            let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_ref())).collect();
            match name {
                "etcd_request_duration_seconds" => out.histogram(name, &labels, &set.figures.duration),
                "etcd_requests_total" => out.sample(name, &labels, set.figures.duration.count()),
                _ => out.sample(name, &labels, set.figures.errors.get()),
            }
        }
    };
    let help = "[ALPHA] Etcd request latency in seconds for each operation and object type.";
    each("etcd_request_duration_seconds", Kind::Histogram, help);
    let help = "[ALPHA] Etcd request counts for each operation and object type.";
    each("etcd_requests_total", Kind::Counter, help);
    let help = "[ALPHA] Etcd failed request counts for each operation and object type.";
    each("etcd_request_errors_total", Kind::Counter, help);
}

/// What this is, as `/version` has it.
fn build(server: &ApiServer, out: &mut Text) {
    const LABELS: [(&str, &str); 9] = [
        ("build_date", "buildDate"),
        ("compiler", "compiler"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("git_version", "gitVersion"),
        ("go_version", "goVersion"),
        ("major", "major"),
        ("minor", "minor"),
        ("platform", "platform"),
    ];
    let version = super::version(server);
    let labels = LABELS.map(|(label, field)| (label, version.text(field)));
    let help = "[BETA] Always 1; the labels say which version of Kubernetes this is, and how it was built.";
    out.family("kubernetes_build_info", Kind::Gauge, help);
    out.sample("kubernetes_build_info", &labels, 1);
}

/// Of all expressions in this process: those of custom resources, which upstream counts, and all others.
fn expressions(out: &mut Text) {
    static SECONDS: Buckets = Buckets { bounds: &cel::BOUNDS_NS, ..DEFAULT_SECONDS };
    for (name, help, timing) in [
        (
            "apiserver_cel_compilation_duration_seconds",
            "[BETA] How long expressions took to compile.",
            cel::compilation(),
        ),
        (
            "apiserver_cel_evaluation_duration_seconds",
            "[BETA] How long expressions took to evaluate.",
            cel::evaluation(),
        ),
    ] {
        out.family(name, Kind::Histogram, help);
        out.histogram(name, &[], &Histogram::of(&SECONDS, timing.counts(), timing.sum_ns()));
    }
}

fn storage(server: &ApiServer, out: &mut Text) {
    let status = server.store().status();
    let rows = server.rows();
    let caches: Vec<(&Row, Arc<ResourceCache>)> = rows
        .iter()
        .filter(|row| row.stored && row.storage == row.resource)
        .filter_map(|row| Some((&**row, server.cache().resource(row.list_key(None).as_bytes())?)))
        .collect();
    let mut each = |name: &str, kind: Kind, help: &str, of: &dyn Fn(&ResourceCache) -> u64| {
        out.family(name, kind, help);
        for (row, cache) in &caches {
            let labels = [("group", row.resource.group.as_ref()), ("resource", row.resource.plural.as_ref())];
            out.sample(name, &labels, of(cache));
        }
    };
    let help = "[ALPHA] Objects that are stored, by kind.";
    each("apiserver_resource_objects", Kind::Gauge, help, &|cache| cache.len() as u64);
    let help = "[ALPHA] What the objects of a kind weigh.";
    each("apiserver_resource_size_estimate_bytes", Kind::Gauge, help, &|cache| cache.bytes() as u64);
    let help = "[ALPHA] Objects that the watch cache was filled with.";
    each("apiserver_init_events_total", Kind::Counter, help, &|cache| cache.filled_with() as u64);
    let help = "[BETA] Changes that the store told of.";
    each("apiserver_storage_events_received_total", Kind::Counter, help, &|cache| cache.events());
    let help = "[ALPHA] Changes that the watch cache heard of.";
    each("apiserver_watch_cache_events_received_total", Kind::Counter, help, &|cache| cache.events());
    // Watchers read what has changed by themselves: what was heard of is there for them.
    let help = "[ALPHA] Changes that the watch cache has for watchers.";
    each("apiserver_watch_cache_events_dispatched_total", Kind::Counter, help, &|cache| cache.events());
    let help = "[ALPHA] How often the watch cache was filled.";
    each("apiserver_watch_cache_initializations_total", Kind::Counter, help, &|_| 1);
    let revision = server.cache().revision() % REVISION_LIMIT;
    let help = "[ALPHA] How far the watch cache has come, without the digits beyond fifteen.";
    each("apiserver_watch_cache_resource_version", Kind::Gauge, help, &|_| revision);
    let help = "[ALPHA] Changes that the watch cache keeps at most.";
    each("watch_cache_capacity", Kind::Gauge, help, &|_| WINDOW_EVENTS_MAX as u64);
    let help = "[STABLE] (Deprecated since 1.34.0) Objects that are stored, by kind.";
    out.family("apiserver_storage_objects", Kind::Gauge, help);
    for (row, cache) in &caches {
        out.sample("apiserver_storage_objects", &[("resource", &row.resource.to_string())], cache.len());
    }
    let help = "[STABLE] Size of the storage database file physically allocated in bytes.";
    out.family("apiserver_storage_size_bytes", Kind::Gauge, help);
    out.sample("apiserver_storage_size_bytes", &[("storage_cluster_id", "etcd-0")], status.disk_bytes);
    out.single("cluster_store_revision", Kind::Gauge, "The store's revision.", status.revision);
    let help = "Bytes of the keys and values that exist.";
    out.single("cluster_store_live_bytes", Kind::Gauge, help, status.bytes);
    let help = "Bytes of past versions until compaction.";
    out.single("cluster_store_history_bytes", Kind::Gauge, help, status.history_bytes);
}

/// Revisions are shown without what a client's floating point numbers could not hold (upstream does the same).
const REVISION_LIMIT: u64 = 1_000_000_000_000_000;

/// OpenMetrics for those who name it, as Prometheus does.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(','));
    kinds.any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "application/openmetrics-text"))
}
