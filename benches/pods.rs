//! From the create of a pod whose image is present until a watch says that it runs.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use crate::http::{Api, Connection};
use crate::report::{Report, Samples, Target};
use crate::server::Server;
use crate::support::images;

const IMAGE: &str = "docker.io/library/busybox:bench";
const ONE_AFTER_ANOTHER: usize = 20;
const AT_ONCE: usize = 30;
const AT_ONCE_RUNS: usize = 3;
const STEP_MAX: Duration = Duration::from_secs(60);
const PODS: &str = "/api/v1/namespaces/default/pods";

/// When a watcher saw a pod for the first time on a node, running, and gone.
enum Seen {
    Scheduled,
    Running,
    Gone,
}

struct Event {
    name: String,
    seen: Seen,
    at: Instant,
}

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let mut server = Server::new(&[])?;
    let (api, mut connection) = server.start()?;
    let mut watching = api.connect()?;
    server.node_ready(&mut watching)?;
    let archive = server.path("busybox.tar");
    images::busybox().save(IMAGE, &archive);
    server.import(&archive);
    service_account(&mut connection, "default")?;
    let events = watch(&api)?;

    // The first pod meets what is read for the first time.
    let first = one(&mut connection, &events, "first")?;
    report.row("first pod of a server: create to Running", "ms", Samples::one(ms(first.1)), Target::None);
    let (mut scheduled, mut running) = (Vec::new(), Vec::new());
    for number in 0..ONE_AFTER_ANOTHER {
        let times = one(&mut connection, &events, &format!("one-{number}"))?;
        scheduled.push(ms(times.0));
        running.push(ms(times.1));
    }
    report.row("pod: create to its node chosen", "ms", Samples::new(scheduled), Target::None);
    report.row("pod: create to Running", "ms", Samples::new(running), Target::AtMost(250.0));
    let gone = remove_all(&mut connection, &events, ONE_AFTER_ANOTHER + 1)?;
    report.row("21 pods: delete (1 s of grace) to all gone", "s", Samples::one(gone.as_secs_f64()), Target::None);

    let mut all = Vec::new();
    for run in 0..AT_ONCE_RUNS {
        let began = Instant::now();
        for number in 0..AT_ONCE {
            connection.call("POST", PODS, &pod(&format!("many-{run}-{number}")))?;
        }
        all.push(last(&events, AT_ONCE, |seen| matches!(seen, Seen::Running))?.duration_since(began).as_secs_f64());
        remove_all(&mut connection, &events, AT_ONCE)?;
    }
    report.row("30 pods at once: until all run", "s", Samples::new(all), Target::None);
    Ok(())
}

fn pod(name: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": IMAGE, "command": ["sleep", "3600"]}]},
    })
    .to_string()
}

/// Waits until pods can be created in a namespace.
pub fn service_account(connection: &mut Connection, namespace: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    let began = Instant::now();
    while connection.status(&path)? != 200 {
        anyhow::ensure!(began.elapsed() < STEP_MAX, "no default ServiceAccount");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Creates a pod; how long until its node was chosen, and until it ran.
fn one(connection: &mut Connection, events: &Receiver<Event>, name: &str) -> anyhow::Result<(Duration, Duration)> {
    let body = pod(name);
    let began = Instant::now();
    connection.call("POST", PODS, &body)?;
    let mut scheduled = None;
    loop {
        let event = events.recv_timeout(STEP_MAX).with_context(|| format!("pod {name} does not run"))?;
        match event.seen {
            _ if event.name != name => {}
            Seen::Scheduled => scheduled = Some(event.at - began),
            Seen::Running => return Ok((scheduled.unwrap_or(event.at - began), event.at - began)),
            Seen::Gone => anyhow::bail!("pod {name} is gone"),
        }
    }
}

fn remove_all(connection: &mut Connection, events: &Receiver<Event>, count: usize) -> anyhow::Result<Duration> {
    let began = Instant::now();
    connection.call("DELETE", &format!("{PODS}?gracePeriodSeconds=1"), "")?;
    Ok(last(events, count, |seen| matches!(seen, Seen::Gone))? - began)
}

/// When the last of so many events was seen.
fn last(events: &Receiver<Event>, count: usize, wanted: impl Fn(&Seen) -> bool) -> anyhow::Result<Instant> {
    let mut left = count;
    loop {
        let event = events.recv_timeout(STEP_MAX).with_context(|| format!("{left} of {count} pods are left"))?;
        left -= usize::from(wanted(&event.seen));
        if left == 0 {
            return Ok(event.at);
        }
    }
}

/// Watches the pods on a thread of its own, from now on.
fn watch(api: &Api) -> anyhow::Result<Receiver<Event>> {
    let mut connection = api.connect()?;
    let list = connection.call("GET", &format!("{PODS}?limit=1"), "")?;
    let revision = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).context("no resourceVersion")?;
    let path = format!("{PODS}?watch=1&resourceVersion={revision}&timeoutSeconds=600");
    let (send, events) = channel();
    std::thread::spawn(move || {
        let mut known: HashMap<String, u8> = HashMap::new();
        connection.watch(&path, |line| {
            let at = Instant::now();
            let event: Value = serde_json::from_slice(line).unwrap_or_default();
            let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let name = text("/object/metadata/name").to_owned();
            let stage = known.entry(name.clone()).or_insert(0);
            let mut ended = false;
            let mut tell = |seen| ended |= send.send(Event { name: name.clone(), seen, at }).is_err();
            if *stage == 0 && !text("/object/spec/nodeName").is_empty() {
                *stage = 1;
                tell(Seen::Scheduled);
            }
            if *stage == 1 && text("/object/status/phase") == "Running" {
                *stage = 2;
                tell(Seen::Running);
            }
            if text("/type") == "DELETED" {
                *stage = 3;
                tell(Seen::Gone);
            }
            ended
        })
    });
    Ok(events)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
