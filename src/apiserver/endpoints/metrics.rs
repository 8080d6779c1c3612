//! `/metrics`: figures in Prometheus' text form or OpenMetrics, under upstream's names where upstream has them.

use http::header::ACCEPT;
use http::{HeaderMap, Response};

use crate::http::body::Body;
use crate::http::respond;
use crate::metrics::{Kind, Text};
use crate::server::ApiServer;

pub fn answer(server: &ApiServer, headers: &HeaderMap) -> Response<Body> {
    let mut out = Text::new(wants_open_metrics(headers));
    server.flow().write_figures(&mut out);
    server.admission().write_figures(&mut out);
    server.aggregator().write_figures(&mut out);
    storage(server, &mut out);
    let help = "Panics of tasks since the process started.";
    out.single("cluster_task_panics_total", Kind::Counter, help, task::panics());
    let content_type = out.content_type();
    respond::bytes(200, content_type, out.finish().into())
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
