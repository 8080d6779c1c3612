//! How fast changes reach those who watch: all that many writers write, to a hundred, and single writes, to a thousand.
//! Every watcher has a connection of its own. Nobody may miss a change or see it out of order.

use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::api::{load, runs};
use crate::http::{Api, Connection};
use crate::report::{Report, Samples, Target};
use crate::server::Server;

const WRITES_PER_RUN: usize = 3000;
const WRITERS: usize = 16;
const MANY: usize = 100;
const VERY_MANY: usize = 1000;
const SINGLE_WRITES: usize = 200;
const BETWEEN_SINGLE_WRITES: Duration = Duration::from_millis(50);
/// Time for the server to come to rest after so many connections were made.
const REST: Duration = Duration::from_secs(2);
const STACK_BYTES: usize = 256 * 1024;

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut server = Server::new(&["--disable-agent"])?;
    let (api, mut connection) = server.start()?;

    let rates = runs(|run| fan_out(&api, &mut connection, &format!("many-{run}")))?;
    let what = format!("watch events to {MANY} watchers, {WRITERS} writers");
    report.beside(&what, "/s", rates, 29_000.0, Target::AtLeast(145_000.0));

    let before = server.memory()?;
    let mut delays = Vec::new();
    let open = single(&api, &mut connection, || server.memory(), &mut delays)?;
    let per_watcher = (open.rss - before.rss) / VERY_MANY as f64;
    let delays = Samples::new(delays);
    let what = format!("a write to each of {VERY_MANY} watchers");
    let p99 = delays.quantile(0.99);
    report.row(&format!("{what}, median"), "ms", Samples::one(delays.median()), Target::None);
    report.row(&format!("{what}, 99th percentile"), "ms", Samples::one(p99), Target::AtMost(20.0));
    report.row("a watcher's connection: resident", "KiB", Samples::one(per_watcher), Target::None);
    Ok(())
}

/// Events that reach `MANY` watchers in a second while `WRITERS` write as fast as they can.
fn fan_out(api: &Api, connection: &mut Connection, space: &str) -> anyhow::Result<f64> {
    let (path, from) = make_space(connection, space)?;
    let ready = Barrier::new(MANY + 1);
    std::thread::scope(|scope| {
        let watchers: Vec<_> = (0..MANY)
            .map(|_| {
                let (from, ready) = (&from, &ready);
                let work = move || -> anyhow::Result<Instant> {
                    let mut order = Order::default();
                    watch(api, from, ready, |line| {
                        order.next(line);
                        order.seen == WRITES_PER_RUN
                    })?;
                    order.check()?;
                    Ok(Instant::now())
                };
                std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)
            })
            .collect::<Result<_, _>>()?;
        ready.wait();
        std::thread::sleep(REST);
        let began = Instant::now();
        load(api, WRITERS, WRITES_PER_RUN, |number| ("POST", path.clone(), config_map(number)))?;
        let mut last = began;
        for watcher in watchers {
            last = last.max(watcher.join().map_err(|_| anyhow::anyhow!("a watcher panicked"))??);
        }
        Ok((MANY * WRITES_PER_RUN) as f64 / (last - began).as_secs_f64())
    })
}

/// What passes from sending a write to each of `VERY_MANY` watchers having read it, in milliseconds. What `open` gives
/// while all of them watch.
fn single<T>(
    api: &Api,
    connection: &mut Connection,
    open: impl FnOnce() -> anyhow::Result<T>,
    delays: &mut Vec<f64>,
) -> anyhow::Result<T> {
    let (path, from) = make_space(connection, "single")?;
    let sent: Vec<OnceLock<Instant>> = (0..SINGLE_WRITES).map(|_| OnceLock::new()).collect();
    let ready = Barrier::new(VERY_MANY + 1);
    std::thread::scope(|scope| {
        let watchers: Vec<_> = (0..VERY_MANY)
            .map(|_| {
                let (from, ready, sent) = (&from, &ready, &sent);
                let work = move || -> anyhow::Result<Vec<f64>> {
                    let (mut order, mut delays) = (Order::default(), Vec::with_capacity(SINGLE_WRITES));
                    watch(api, from, ready, |line| {
                        let now = Instant::now();
                        if let Some(sent) = sent.get(order.seen).and_then(OnceLock::get) {
                            delays.push((now - *sent).as_secs_f64() * 1e3);
                        }
                        order.next(line);
                        order.seen == SINGLE_WRITES
                    })?;
                    order.check()?;
                    Ok(delays)
                };
                std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)
            })
            .collect::<Result<_, _>>()?;
        ready.wait();
        std::thread::sleep(REST);
        let opened = open()?;
        for (number, sent) in sent.iter().enumerate() {
            sent.set(Instant::now()).map_err(|_| anyhow::anyhow!("sent twice"))?;
            connection.count("POST", &path, &config_map(number))?;
            std::thread::sleep(BETWEEN_SINGLE_WRITES);
        }
        for watcher in watchers {
            delays.extend(watcher.join().map_err(|_| anyhow::anyhow!("a watcher panicked"))??);
        }
        if delays.len() != VERY_MANY * SINGLE_WRITES {
            bail!("{} events of {}", delays.len(), VERY_MANY * SINGLE_WRITES);
        }
        Ok(opened)
    })
}

/// Watches what this path says; waits at the barrier when it is connected, also when it failed to.
fn watch(api: &Api, path: &str, ready: &Barrier, seen: impl FnMut(&[u8]) -> bool) -> anyhow::Result<()> {
    let connected = api.connect_small();
    ready.wait();
    connected?.watch(path, seen)
}

/// The path of a new namespace's ConfigMaps, and that of the watch of what becomes of them from now on.
fn make_space(connection: &mut Connection, name: &str) -> anyhow::Result<(String, String)> {
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string();
    connection.call("POST", "/api/v1/namespaces", &space)?;
    // The root certificates, which a controller puts into every namespace, come before those that are counted.
    std::thread::sleep(REST / 2);
    let path = format!("/api/v1/namespaces/{name}/configmaps");
    let list = connection.call("GET", &path, "")?;
    let version =
        list.pointer("/metadata/resourceVersion").and_then(Value::as_str).context("a list without a version")?;
    let from = format!("{path}?watch=true&resourceVersion={version}");
    Ok((path, from))
}

fn config_map(number: usize) -> String {
    let name = format!("c{number}");
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "value"}}).to_string()
}

/// What a watcher has seen.
#[derive(Default)]
struct Order {
    seen: usize,
    newest: u64,
    out_of_order: bool,
}

impl Order {
    fn next(&mut self, line: &[u8]) {
        let revision = revision(line).unwrap_or(0);
        self.out_of_order |= revision <= self.newest;
        self.newest = revision;
        self.seen += 1;
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.out_of_order { bail!("a watcher saw changes out of order") } else { Ok(()) }
    }
}

fn revision(line: &[u8]) -> anyhow::Result<u64> {
    const NAME: &[u8] = b"\"resourceVersion\":\"";
    let at = line.windows(NAME.len()).position(|window| window == NAME).context("an event without a version")?;
    let digits: Vec<u8> = line.iter().skip(at + NAME.len()).take_while(|byte| byte.is_ascii_digit()).copied().collect();
    Ok(String::from_utf8(digits)?.parse()?)
}
