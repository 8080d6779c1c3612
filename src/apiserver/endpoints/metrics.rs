//! `/metrics`: figures in Prometheus' text form, under upstream's names where upstream has them.

use std::fmt::Write;

use http::Response;

use crate::http::body::Body;
use crate::http::respond;
use crate::server::ApiServer;

pub fn answer(server: &ApiServer) -> Response<Body> {
    let mut out = String::new();
    let status = server.store().status();
    head(&mut out, "apiserver_storage_objects", "gauge", "Number of stored objects by resource.");
    for row in server.rows().filter(|row| row.stored && row.storage == row.resource) {
        let Some(cache) = server.cache().resource(row.list_key(None).as_bytes()) else { continue };
        line(&mut out, "apiserver_storage_objects", &format!("resource=\"{}\"", row.resource), cache.len() as u64);
    }
    head(&mut out, "apiserver_storage_size_bytes", "gauge", "Bytes on disk of the store.");
    line(&mut out, "apiserver_storage_size_bytes", "", status.disk_bytes);
    head(&mut out, "cluster_store_revision", "counter", "The store's revision.");
    line(&mut out, "cluster_store_revision", "", status.revision);
    head(&mut out, "cluster_store_live_bytes", "gauge", "Bytes of the keys and values that exist.");
    line(&mut out, "cluster_store_live_bytes", "", status.bytes);
    head(&mut out, "cluster_store_history_bytes", "gauge", "Bytes of past versions until compaction.");
    line(&mut out, "cluster_store_history_bytes", "", status.history_bytes);
    head(&mut out, "cluster_task_panics_total", "counter", "Panics of tasks since the process started.");
    line(&mut out, "cluster_task_panics_total", "", task::panics());
    respond::bytes(200, "text/plain; version=0.0.4; charset=utf-8", out.into())
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ =
        if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
}
