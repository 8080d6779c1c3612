//! What is counted of requests over HTTPS, under upstream's names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Call, PatchKind, Verb};

use super::labels::{ByLabels, Set};
use super::{Buckets, Counter, Gauge, Histogram, Kind, REQUEST_SECONDS, Text};

static SIZES: Buckets =
    Buckets { bounds: &[1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000], per_unit: 1.0 };
static EVENT_SIZES: Buckets =
    Buckets { bounds: &[1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072], per_unit: 1.0 };

/// Codes that are counted apart; others are counted as the next one.
const CODES: [u16; 26] = [
    101, 200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 431, 499, 500, 501, 502,
    503, 504, 599,
];

/// Upstream's buckets of `apiserver_request_sli_duration_seconds`, in nanoseconds.
const SLI_BOUNDS: usize = 21;
static SLI_SECONDS: Buckets = Buckets {
    bounds: &{
        let mut bounds = [0; SLI_BOUNDS];
        let mut at = 0;
        while at < SLI_BOUNDS {
            // The same as for all of a request's time, but for the two that are shorter than 50 ms.
            bounds[at] = REQUEST_SECONDS.bounds[at + 2];
            at += 1;
        }
        bounds
    },
    per_unit: 1e9,
};

/// Codes of requests that the server ended to protect itself.
const TERMINATED: [u16; 2] = [429, 504];

const COMPONENT: (&str, &str) = ("component", "apiserver");

/// All figures of requests. Labels: verb, group, version, resource, subresource, scope, dry_run.
pub struct Requests {
    sets: ByLabels<7, RequestFigures>,
    mutating: Gauge,
    read_only: Gauge,
    pub dropped_mutating: Counter,
    pub dropped_read_only: Counter,
}

pub type RequestSet = Arc<Set<7, RequestFigures>>;

pub struct RequestFigures {
    codes: [Counter; CODES.len()],
    duration: Histogram,
    /// Without what was waited for.
    own: Histogram,
    terminated: [Counter; TERMINATED.len()],
    sizes: Histogram,
    long_running: Gauge,
    events: Counter,
    event_sizes: Histogram,
}

/// How long a request took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub all: Duration,
    /// The part that was spent waiting for a turn and for webhooks.
    pub waiting: Duration,
}

/// Counts while it is there.
pub struct Present<'a>(&'a Gauge);

/// Counts a watch or stream while it lasts.
pub struct Lasting(RequestSet);

impl Requests {
    pub fn new() -> Requests {
        Requests {
            sets: ByLabels::new(RequestFigures::new),
            mutating: Gauge::default(),
            read_only: Gauge::default(),
            dropped_mutating: Counter::default(),
            dropped_read_only: Counter::default(),
        }
    }

    /// The figures of requests for a served resource like this.
    pub fn of_call(&self, call: &Call) -> RequestSet {
        let verb = match (call.verb, call.subresource.as_deref()) {
            (_, Some("exec" | "attach" | "portforward" | "proxy")) => "CONNECT",
            (Verb::Get, _) => "GET",
            (Verb::List, _) => "LIST",
            (Verb::Watch, _) => "WATCH",
            (Verb::Create, _) => "POST",
            (Verb::Update, _) => "PUT",
            (Verb::Patch, _) if call.options.patch == Some(PatchKind::Apply) => "APPLY",
            (Verb::Patch, _) => "PATCH",
            (Verb::Delete, _) => "DELETE",
            (Verb::DeleteCollection, _) => "DELETECOLLECTION",
            (Verb::Options, _) => "other",
        };
        let scope = match (&call.name, &call.namespace) {
            (Some(_), _) => "resource",
            (None, _) if call.verb == Verb::Create => "resource",
            (None, Some(_)) => "namespace",
            (None, None) => "cluster",
        };
        let resource = &call.resource;
        let subresource = call.subresource.as_deref().unwrap_or_default();
        let dry_run = if call.options.dry_run { "All" } else { "" };
        self.sets.get([verb, &resource.group, &resource.version, &resource.plural, subresource, scope, dry_run])
    }

    /// The figures of requests for a path that is no resource; only the known ones are told apart.
    pub fn of_path(&self, method: &http::Method, path: &str) -> RequestSet {
        const KNOWN: [&str; 9] =
            ["/healthz", "/livez", "/readyz", "/version", "/metrics", "/openapi", "/openid", "/apis", "/api"];
        let verb = match *method {
            http::Method::GET => "GET",
            http::Method::HEAD => "HEAD",
            http::Method::POST => "POST",
            http::Method::PUT => "PUT",
            http::Method::PATCH => "PATCH",
            http::Method::DELETE => "DELETE",
            _ => "other",
        };
        let below =
            |known: &&str| path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let subresource = KNOWN.iter().find(|known| below(known)).copied().unwrap_or_default();
        self.sets.get([verb, "", "", "", subresource, "", ""])
    }

    pub fn in_flight(&self, mutating: bool) -> Present<'_> {
        let gauge = if mutating { &self.mutating } else { &self.read_only };
        gauge.add(1);
        Present(gauge)
    }

    pub fn write(&self, out: &mut Text) {
        let sets = self.sets.all();
        let name = "apiserver_request_total";
        let help = "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, \
                    resource, scope, component, and HTTP response code.";
        out.family(name, Kind::Counter, help);
        for set in &sets {
            let [verb, group, version, resource, subresource, scope, dry_run] = labels(set);
            for (code, counter) in CODES.iter().zip(&set.figures.codes).filter(|(_, counter)| counter.get() > 0) {
                let code = code.to_string();
                let labels =
                    [("code", code.as_str()), COMPONENT, dry_run, group, resource, scope, subresource, verb, version];
                out.sample(name, &labels, counter.get());
            }
        }
        let name = "apiserver_request_duration_seconds";
        let help = "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, \
                    resource, subresource, scope and component.";
        out.family(name, Kind::Histogram, help);
        for set in sets.iter().filter(|set| set.figures.duration.count() > 0) {
            let [verb, group, version, resource, subresource, scope, dry_run] = labels(set);
            let labels = [COMPONENT, dry_run, group, resource, scope, subresource, verb, version];
            out.histogram(name, &labels, &set.figures.duration);
        }
        let name = "apiserver_request_sli_duration_seconds";
        let help = "[ALPHA] How long requests took, without their waiting for a turn and for webhooks.";
        out.family(name, Kind::Histogram, help);
        for set in sets.iter().filter(|set| set.figures.own.count() > 0 && !is_dry_run(set)) {
            let [verb, group, version, resource, subresource, scope, _] = labels(set);
            out.histogram(name, &[COMPONENT, group, resource, scope, subresource, verb, version], &set.figures.own);
        }
        let name = "apiserver_request_terminations_total";
        out.family(name, Kind::Counter, "[ALPHA] Requests that the server ended to protect itself.");
        for set in sets.iter().filter(|set| !is_dry_run(set)) {
            let [verb, group, version, resource, subresource, scope, _] = labels(set);
            for (code, counter) in TERMINATED.iter().zip(&set.figures.terminated).filter(|(_, one)| one.get() > 0) {
                let code = code.to_string();
                let labels = [("code", code.as_str()), COMPONENT, group, resource, scope, subresource, verb, version];
                out.sample(name, &labels, counter.get());
            }
        }
        let name = "apiserver_response_sizes";
        let help = "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, \
                    scope and component.";
        out.family(name, Kind::Histogram, help);
        let reads = |set: &&RequestSet| matches!(set.values.first().map(|verb| &**verb), Some("GET" | "LIST"));
        for set in sets.iter().filter(reads).filter(|set| set.figures.sizes.count() > 0 && !is_dry_run(set)) {
            let [verb, group, version, resource, subresource, scope, _] = labels(set);
            out.histogram(name, &[COMPONENT, group, resource, scope, subresource, verb, version], &set.figures.sizes);
        }
        let name = "apiserver_longrunning_requests";
        let help = "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, \
                    resource, scope and component. Not all requests are tracked this way.";
        out.family(name, Kind::Gauge, help);
        for set in sets.iter().filter(|set| matches!(set.values.first().map(|verb| &**verb), Some("WATCH" | "CONNECT")))
        {
            let [verb, group, version, resource, subresource, scope, _] = labels(set);
            let labels = [COMPONENT, group, resource, scope, subresource, verb, version];
            out.sample(name, &labels, set.figures.long_running.get());
        }
        self.write_watches(&sets, out);
        let name = "apiserver_current_inflight_requests";
        let help = "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind \
                    in last second.";
        out.family(name, Kind::Gauge, help);
        out.sample(name, &[("request_kind", "mutating")], self.mutating.get());
        out.sample(name, &[("request_kind", "readOnly")], self.read_only.get());
        let name = "apiserver_dropped_requests_total";
        out.family(name, Kind::Counter, "[ALPHA] Number of requests dropped with 'Try again later' response");
        out.sample(name, &[("request_kind", "mutating")], self.dropped_mutating.get());
        out.sample(name, &[("request_kind", "readOnly")], self.dropped_read_only.get());
    }

    /// Scopes of a resource's watches are one.
    fn write_watches(&self, sets: &[RequestSet], out: &mut Text) {
        let watched: Vec<&RequestSet> = sets.iter().filter(|set| set.figures.events.get() > 0).collect();
        let name = "apiserver_watch_events_total";
        out.family(name, Kind::Counter, "[ALPHA] Number of events sent in watch clients");
        let mut totals: BTreeMap<[(&str, &str); 3], u64> = BTreeMap::new();
        for set in &watched {
            let [_, group, version, resource, ..] = labels(set);
            *totals.entry([group, resource, version]).or_default() += set.figures.events.get();
        }
        totals.iter().for_each(|(labels, total)| out.sample(name, labels, total));
        let name = "apiserver_watch_events_sizes";
        out.family(name, Kind::Histogram, "[ALPHA] Watch event size distribution in bytes");
        let mut sizes: BTreeMap<[(&str, &str); 3], Histogram> = BTreeMap::new();
        for set in watched.iter().filter(|set| set.figures.event_sizes.count() > 0) {
            let [_, group, version, resource, ..] = labels(set);
            let all = sizes.entry([group, resource, version]).or_insert_with(|| Histogram::new(&EVENT_SIZES));
            all.absorb(&set.figures.event_sizes);
        }
        sizes.iter().for_each(|(labels, all)| out.histogram(name, labels, all));
    }
}

fn labels(set: &Set<7, RequestFigures>) -> [(&'static str, &str); 7] {
    let [verb, group, version, resource, subresource, scope, dry_run] = &set.values;
    [
        ("verb", verb),
        ("group", group),
        ("version", version),
        ("resource", resource),
        ("subresource", subresource),
        ("scope", scope),
        ("dry_run", dry_run),
    ]
}

fn is_dry_run(set: &RequestSet) -> bool {
    set.values.last().is_some_and(|dry_run| !dry_run.is_empty())
}

impl RequestFigures {
    fn new() -> RequestFigures {
        RequestFigures {
            codes: Default::default(),
            duration: Histogram::new(&REQUEST_SECONDS),
            own: Histogram::new(&SLI_SECONDS),
            terminated: Default::default(),
            sizes: Histogram::new(&SIZES),
            long_running: Gauge::default(),
            events: Counter::default(),
            event_sizes: Histogram::new(&EVENT_SIZES),
        }
    }

    /// An answer went out. `took` and `bytes` where they are known.
    pub fn answered(&self, code: u16, took: Option<Took>, bytes: Option<u64>) {
        let at = CODES.partition_point(|one| *one < code).min(CODES.len() - 1);
        if let Some(counter) = self.codes.get(at) {
            counter.inc();
        }
        if let Some(took) = took {
            self.duration.observe_duration(took.all);
            self.own.observe_duration(took.all.saturating_sub(took.waiting));
        }
        if let Some(bytes) = bytes {
            self.sizes.observe(bytes);
        }
    }

    /// The server ended a request to protect itself.
    pub fn terminated(&self, code: u16) {
        let of_code = TERMINATED.iter().zip(&self.terminated).find(|(one, _)| **one == code);
        if let Some((_, counter)) = of_code {
            counter.inc();
        }
    }

    /// Events of a watch, together so many bytes.
    pub fn sent(&self, events: u64, bytes: u64) {
        self.events.add(events);
        self.event_sizes.observe(bytes / events.max(1));
    }
}

impl Lasting {
    pub fn new(set: RequestSet) -> Lasting {
        set.figures.long_running.add(1);
        Lasting(set)
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.0.figures.long_running.add(-1);
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_under_upstreams_labels() {
        let requests = Requests::new();
        let mut call = Call::new(Verb::List, api::Resource::new("apps", "v1", "deployments"));
        call.namespace = Some("a".to_owned());
        let took = Took { all: Duration::from_millis(120), waiting: Duration::from_millis(90) };
        requests.of_call(&call).figures.terminated(429);
        requests.of_call(&call).figures.answered(200, Some(took), Some(5000));
        call.verb = Verb::Watch;
        let watch = requests.of_call(&call);
        watch.figures.sent(2, 3000);
        call.namespace = None;
        requests.of_call(&call).figures.sent(1, 3000);
        let lasting = Lasting::new(watch.clone());
        let present = requests.in_flight(false);
        requests.of_path(&http::Method::GET, "/livez/ping").figures.answered(418, None, None);
        let write = || {
            let mut text = Text::new(false);
            requests.write(&mut text);
            text.finish()
        };
        let text = write();
        for line in [
            "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"apps\",resource=\"deployments\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1",
            "apiserver_request_total{code=\"422\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"\",scope=\"\",subresource=\"/livez\",verb=\"GET\",version=\"\"} 1",
            "apiserver_request_duration_seconds_bucket{component=\"apiserver\",dry_run=\"\",group=\"apps\",resource=\"deployments\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\",le=\"0.1\"} 0",
            "apiserver_request_duration_seconds_bucket{component=\"apiserver\",dry_run=\"\",group=\"apps\",resource=\"deployments\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\",le=\"0.2\"} 1",
            "apiserver_request_sli_duration_seconds_bucket{component=\"apiserver\",group=\"apps\",resource=\"deployments\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\",le=\"0.05\"} 1",
            "apiserver_request_terminations_total{code=\"429\",component=\"apiserver\",group=\"apps\",resource=\"deployments\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1",
            "apiserver_longrunning_requests{component=\"apiserver\",group=\"apps\",resource=\"deployments\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1",
            "apiserver_watch_events_sizes_count{group=\"apps\",resource=\"deployments\",version=\"v1\"} 2",
            "apiserver_watch_events_total{group=\"apps\",resource=\"deployments\",version=\"v1\"} 3",
            "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
        drop((lasting, present));
        let text = write();
        assert!(text.contains("verb=\"WATCH\",version=\"v1\"} 0\n"));
        assert!(text.contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 0\n"));
    }
}
