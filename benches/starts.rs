//! From the start of the process: with an empty data directory until the node is Ready, and with data until the API server
//! serves and the node's agent has taken over.

use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;

use crate::http::Connection;
use crate::report::{Report, Samples, Target};
use crate::server::{NODE, Server};

const RUNS: usize = 7;
/// Between restarts.
const SETTLE: Duration = Duration::from_millis(500);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const RENEWED: &str = "/spec/renewTime";

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let (mut serving, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let mut server = Server::new(&[])?;
        let began = server.spawn()?;
        let (_, mut connection) = server.serving()?;
        serving.push(began.elapsed().as_secs_f64());
        ready.push((server.node_ready(&mut connection)? - began).as_secs_f64());
    }
    report.row("first start to API serving", "s", Samples::new(serving), Target::None);
    report.row("first start to node Ready", "s", Samples::new(ready), Target::AtMost(2.0));

    let mut server = Server::new(&[])?;
    let (mut api, mut connection) = server.start()?;
    server.node_ready(&mut connection)?;
    for (signal, how) in [(Signal::SIGTERM, "stopped"), (Signal::SIGKILL, "killed")] {
        let (mut serving, mut node) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let lease = api.connect()?.call("GET", &format!("{LEASES}/{NODE}"), "")?;
            let before = lease.pointer(RENEWED).and_then(|time| time.as_str()).unwrap_or_default().to_owned();
            server.end(signal)?;
            let began = server.spawn()?;
            (api, connection) = server.serving()?;
            serving.push(began.elapsed().as_secs_f64());
            node.push((lease_renewed(&mut connection, &before)? - began).as_secs_f64());
            server.node_ready(&mut api.connect()?)?;
            std::thread::sleep(SETTLE);
        }
        let what = format!("restart to API serving, after it was {how}");
        report.row(&what, "s", Samples::new(serving), Target::AtMost(0.5));
        let what = format!("restart to the node's next heartbeat, after it was {how}");
        report.row(&what, "s", Samples::new(node), Target::None);
    }
    Ok(())
}

/// Its Ready condition outlives the node's process; that its lease is renewed says that it is back. The connection is
/// used up.
fn lease_renewed(connection: &mut Connection, before: &str) -> anyhow::Result<Instant> {
    let path = format!("{LEASES}?watch=1&fieldSelector=metadata.name%3D{NODE}&timeoutSeconds=50");
    let mut at = None;
    connection.watch(&path, |line| {
        let now = Instant::now();
        let event: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
        let renewed = event.pointer("/object").and_then(|lease| lease.pointer(RENEWED)?.as_str());
        let again = renewed.is_some_and(|time| time != before);
        at = again.then_some(now);
        again
    })?;
    at.context("the node's lease is not renewed")
}
