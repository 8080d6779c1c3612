//! What the API server does in a second, without a node. The pods name a scheduler that nobody is.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::http::Api;
use crate::pods::service_account;
use crate::report::{Report, Samples, Target};
use crate::server::Server;

const RUNS: usize = 5;
const CONFIG_MAPS_PER_RUN: usize = 1000;
const GETS_PER_RUN: usize = 10_000;
const PODS: usize = 10_000;
const RUN_MAX: Duration = Duration::from_secs(20);
const SPACE: &str = "/api/v1/namespaces/default";

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let mut server = Server::new(&["--disable-agent"])?;
    let (api, mut connection) = server.start()?;
    service_account(&mut connection, "default")?;
    std::thread::sleep(Duration::from_secs(2));
    let empty = server.memory()?;

    let config_map = |name: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "value"}})
            .to_string()
    };
    let path = format!("{SPACE}/configmaps");
    for (clients, upstream) in [(1, 480.0), (16, 1400.0)] {
        let rates = runs(|run| {
            load(&api, clients, CONFIG_MAPS_PER_RUN, |number| {
                ("POST", path.clone(), config_map(&format!("c{clients}-{run}-{number}")))
            })
        })?;
        let what = format!("creates of ConfigMaps, {clients} in flight");
        report.beside(&what, "/s", rates, upstream, Target::AtLeast(5.0 * upstream));
    }
    let rates = runs(|_| {
        load(&api, 16, GETS_PER_RUN, |number| {
            ("GET", format!("{path}/c16-0-{}", number % CONFIG_MAPS_PER_RUN.min(200)), String::new())
        })
    })?;
    report.beside("gets of a ConfigMap, 16 in flight", "/s", rates, 2200.0, Target::AtLeast(11_000.0));

    let before = server.memory()?;
    let path = format!("{SPACE}/pods");
    let per_run = PODS / RUNS / 2;
    for (clients, upstream) in [(16, 520.0), (64, 610.0)] {
        let rates = runs(|run| {
            load(&api, clients, per_run, |number| ("POST", path.clone(), pod(&format!("p{clients}-{run}-{number}"))))
        })?;
        let what = format!("creates of pods, {clients} in flight");
        report.beside(&what, "/s", rates, upstream, Target::AtLeast(5.0 * upstream));
    }
    std::thread::sleep(Duration::from_secs(2));
    let full = server.memory()?;
    report.beside("server without node, empty: resident", "MB", Samples::one(mb(empty.rss)), 330.0, Target::None);
    report.row("what 10,000 pods add: resident", "MB", Samples::one(mb(full.rss - before.rss)), Target::AtMost(110.0));

    let all = format!("{path}?resourceVersion=0");
    for (clients, upstream, target) in [(1, Some(0.87), Some(0.087)), (4, Some(2.9), Some(0.29)), (16, None, None)] {
        let (mut times, mut added, mut bytes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..RUNS {
            let resident = server.memory()?;
            server.forget_peak()?;
            let (took, length) = together(&api, clients, &all)?;
            times.push(took.as_secs_f64());
            added.push(mb(server.memory()?.peak - resident.rss));
            bytes = length;
        }
        let what = format!("list of 10,000 pods ({:.0} MB), {clients} at once", bytes as f64 / 1e6);
        let target = target.map_or(Target::None, Target::AtMost);
        match upstream {
            Some(upstream) => report.beside(&what, "s", Samples::new(times), upstream, target),
            None => report.row(&what, "s", Samples::new(times), target),
        }
        let target = if clients == 16 { Target::AtMost(50.0) } else { Target::None };
        report.row(&format!("memory that it adds, {clients} at once"), "MB", Samples::new(added), target);
    }

    let mut serving = Vec::new();
    for _ in 0..RUNS {
        server.end(Signal::SIGTERM)?;
        let began = server.spawn()?;
        server.serving()?;
        serving.push(began.elapsed().as_secs_f64());
    }
    report.row("restart to API serving, with 10,000 pods", "s", Samples::new(serving), Target::None);

    let mut connection = api.connect()?;
    let one = |run: usize, number: usize| format!("{path}/p16-{run}-{number}");
    let rates = runs(|run| {
        let changed = (0..per_run).map(|number| {
            let mut pod = connection.call("GET", &one(run, number), "")?;
            if let Some(labels) = pod.pointer_mut("/metadata/labels") {
                *labels = json!({"app": "bench", "changed": "1"});
            }
            Ok(pod.to_string())
        });
        let changed = changed.collect::<anyhow::Result<Vec<String>>>()?;
        load(&api, 16, per_run, |number| ("PUT", one(run, number), changed.get(number).cloned().unwrap_or_default()))
    })?;
    report.beside("updates of pods, 16 in flight", "/s", rates, 300.0, Target::AtLeast(1500.0));
    let rates = runs(|run| {
        load(&api, 16, per_run, |number| {
            let patch = json!({"metadata": {"labels": {"changed": "2"}}}).to_string();
            ("PATCH", one(run, number), patch)
        })
    })?;
    report.beside("merge patches of pods, 16 in flight", "/s", rates, 300.0, Target::AtLeast(1500.0));
    Ok(())
}

/// A pod whose JSON, as it is served, has about 7.4 KB, as upstream's yardstick had.
fn pod(name: &str) -> String {
    let env: Vec<_> = (0..31)
        .map(|number| json!({"name": format!("VARIABLE_{number}"), "value": format!("{number:x}").repeat(55)}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench", "changed": "0"}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [{"name": "main", "image": "busybox", "command": ["sleep", "3600"], "env": env}],
        },
    })
    .to_string()
}

pub fn runs(mut run: impl FnMut(usize) -> anyhow::Result<f64>) -> anyhow::Result<Samples> {
    Ok(Samples::new((0..RUNS).map(&mut run).collect::<anyhow::Result<_>>()?))
}

/// Makes `count` requests with so many in flight, but ends after `RUN_MAX`; requests per second.
pub fn load(
    api: &Api,
    clients: usize,
    count: usize,
    request: impl Fn(usize) -> (&'static str, String, String) + Sync,
) -> anyhow::Result<f64> {
    let (next, done, start) = (AtomicUsize::new(0), AtomicUsize::new(0), Barrier::new(clients + 1));
    let mut connections = (0..clients).map(|_| api.connect()).collect::<anyhow::Result<Vec<_>>>()?;
    // TLS is agreed on before the clock starts.
    for connection in &mut connections {
        connection.status("/readyz")?;
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .into_iter()
            .map(|mut connection| {
                let (next, done, start, request) = (&next, &done, &start, &request);
                scope.spawn(move || -> anyhow::Result<()> {
                    start.wait();
                    let began = Instant::now();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count || began.elapsed() > RUN_MAX {
                            return Ok(());
                        }
                        let (method, path, body) = request(number);
                        connection.count(method, &path, &body)?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
    })
}

/// So many clients that ask for the same at once: when the last has it, and the bytes that each got.
fn together(api: &Api, clients: usize, path: &str) -> anyhow::Result<(Duration, u64)> {
    let start = Barrier::new(clients + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                let start = &start;
                scope.spawn(move || -> anyhow::Result<u64> {
                    let connection = api.connect().and_then(|mut connection| {
                        connection.status("/readyz")?;
                        Ok(connection)
                    });
                    start.wait();
                    connection?.count("GET", path, "")
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        let mut length = 0;
        for thread in threads {
            length = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok((began.elapsed(), length))
    })
}

fn mb(kib: f64) -> f64 {
    kib * 1024.0 / 1e6
}
