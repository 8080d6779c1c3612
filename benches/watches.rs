//! How fast changes reach those who watch: all that many writers write, to a hundred, and single writes, to a thousand.
//! Every watcher has a connection of its own. Nobody may miss a change or see it out of order.

use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::api::{load, runs};
use crate::http::{Api, Connection, Watch, follow};
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
/// Threads that read for all watchers: they share the processors with the server.
const READERS: usize = 2;

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
    let mut began = Instant::now();
    let seen = watched(api, &from, MANY, WRITES_PER_RUN, || {
        began = Instant::now();
        load(api, WRITERS, WRITES_PER_RUN, |number| ("POST", path.clone(), config_map(number)))
    })?;
    let last = seen.iter().flatten().max().copied().unwrap_or(began);
    Ok((MANY * WRITES_PER_RUN) as f64 / (last - began).as_secs_f64())
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
    let (mut sent, mut opened) = (Vec::new(), None);
    let seen = watched(api, &from, VERY_MANY, SINGLE_WRITES, || {
        opened = Some(open()?);
        for number in 0..SINGLE_WRITES {
            sent.push(Instant::now());
            connection.count("POST", &path, &config_map(number))?;
            std::thread::sleep(BETWEEN_SINGLE_WRITES);
        }
        Ok(())
    })?;
    let of_one = |times: &Vec<Instant>| -> Vec<f64> {
        times.iter().zip(&sent).map(|(seen, sent)| (*seen - *sent).as_secs_f64() * 1e3).collect()
    };
    delays.extend(seen.iter().flat_map(of_one));
    opened.context("nobody watched")
}

/// Lets so many watch what this path says until each has seen as many changes as `write` makes; when each saw which.
fn watched<T>(
    api: &Api,
    path: &str,
    watchers: usize,
    changes: usize,
    write: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<Vec<Vec<Instant>>> {
    let open = |_| api.connect_small()?.into_watch(path);
    let mut watches = (0..watchers).map(open).collect::<anyhow::Result<Vec<Watch>>>()?;
    std::thread::scope(|scope| {
        let read = |part| scope.spawn(move || read(part, changes));
        let readers: Vec<_> = watches.chunks_mut(watchers.div_ceil(READERS)).map(read).collect();
        std::thread::sleep(REST);
        write()?;
        let mut seen = Vec::with_capacity(watchers);
        for reader in readers {
            seen.extend(reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??);
        }
        Ok(seen)
    })
}

/// Reads so many changes from each watch; when which came.
fn read(watches: &mut [Watch], changes: usize) -> anyhow::Result<Vec<Vec<Instant>>> {
    let mut seen = vec![(Order::default(), Vec::with_capacity(changes)); watches.len()];
    follow(watches, |number, line| {
        let now = Instant::now();
        let Some((order, times)) = seen.get_mut(number) else { return true };
        order.next(line);
        times.push(now);
        times.len() == changes
    })?;
    seen.into_iter().map(|(order, times)| order.check().map(|()| times)).collect()
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

/// The newest revision that a watcher has seen.
#[derive(Clone, Default)]
struct Order {
    newest: u64,
    broken: bool,
}

impl Order {
    fn next(&mut self, line: &[u8]) {
        let revision = revision(line).unwrap_or(0);
        self.broken |= revision <= self.newest;
        self.newest = revision;
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.broken, "a watcher saw changes out of order");
        Ok(())
    }
}

fn revision(line: &[u8]) -> anyhow::Result<u64> {
    const NAME: &[u8] = b"\"resourceVersion\":\"";
    let at = line.windows(NAME.len()).position(|window| window == NAME).context("an event without a version")?;
    let digits: Vec<u8> = line.iter().skip(at + NAME.len()).take_while(|byte| byte.is_ascii_digit()).copied().collect();
    Ok(String::from_utf8(digits)?.parse()?)
}
