//! `/metrics`: figures in Prometheus' text form or OpenMetrics, under upstream's names where upstream has them.

use http::header::ACCEPT;
use http::{HeaderMap, Response};

use crate::http::body::Body;
use crate::http::respond;
use crate::metrics::{Kind, Text, write_process};
use crate::server::ApiServer;

pub fn answer(server: &ApiServer, headers: &HeaderMap) -> Response<Body> {
    let mut out = Text::new(wants_open_metrics(headers));
    let metrics = server.metrics();
    metrics.requests.write(&mut out);
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
    storage(server, &mut out);
    operations(server, &mut out);
    write_process(&mut out);
    let version = server.config().git_version.as_str();
    let help = "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree \
                state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it \
                is running.";
    out.family("kubernetes_build_info", Kind::Gauge, help);
    out.sample("kubernetes_build_info", &[("git_version", version), ("major", "1"), ("minor", "36")], 1);
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

fn storage(server: &ApiServer, out: &mut Text) {
    let status = server.store().status();
    out.family(
        "apiserver_resource_objects",
        Kind::Gauge,
        "[ALPHA] Number of stored objects at the time of last check split by kind.",
    );
    let rows = server.rows();
    let caches: Vec<_> = rows
        .iter()
        .filter(|row| row.stored && row.storage == row.resource)
        .filter_map(|row| Some((row, server.cache().resource(row.list_key(None).as_bytes())?)))
        .collect();
    for (row, cache) in &caches {
        let labels = [("group", row.resource.group.as_ref()), ("resource", row.resource.plural.as_ref())];
        out.sample("apiserver_resource_objects", &labels, cache.len());
    }
    out.family(
        "apiserver_storage_objects",
        Kind::Gauge,
        "[STABLE] Number of stored objects at the time of last check split by kind.",
    );
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

/// OpenMetrics for those who name it, as Prometheus does.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(','));
    kinds.any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "application/openmetrics-text"))
}
