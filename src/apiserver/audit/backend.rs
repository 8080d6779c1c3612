//! Where events go: the log file and the webhook, at once or in batches.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use rand::RngExt;
use task::Shutdown;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::event::Facts;
use super::log::Writer;
use super::options::{Delivery, Format, LogOptions, Mode, OptionsError};
use super::policy::{Level, Stage};
use crate::metrics::Counter;
use crate::webhook::{CallError, Caller, Cause, Endpoint};

/// Attempts at a batch before it is given up, and by how much the pause grows (upstream's).
const ATTEMPTS: u32 = 5;
const BACKOFF_FACTOR: f64 = 1.5;
const BACKOFF_JITTER: f64 = 0.2;
/// An answer of the webhook takes at most so long (upstream: client-go's 30 s).
const CALL_MAX: Duration = Duration::from_secs(30);

pub struct Backend {
    /// As upstream's metric names it.
    pub name: &'static str,
    pub mode: Mode,
    delivery: Delivery,
    out: Arc<Out>,
    batches: Option<mpsc::Sender<Bytes>>,
    pub errors: Arc<Counter>,
}

enum Out {
    Log { writer: Mutex<Writer>, format: Format },
    Webhook { caller: Arc<Caller>, endpoint: Endpoint, initial_backoff: Duration },
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the audit log cannot be written")]
    Log(#[from] std::io::Error),
    #[error(transparent)]
    Webhook(#[from] CallError),
}

impl Backend {
    pub fn log(options: &LogOptions, shutdown: &Shutdown) -> Result<Backend, OptionsError> {
        options.delivery.check()?;
        let opened = Writer::open(options.file.clone());
        let writer = opened.map_err(|source| OptionsError::File { path: options.file.path.clone(), source })?;
        let out = Out::Log { writer: Mutex::new(writer), format: options.format };
        Ok(Backend::new("log", options.delivery, out, shutdown))
    }

    pub fn webhook(
        endpoint: Endpoint,
        caller: Arc<Caller>,
        initial_backoff: Duration,
        delivery: Delivery,
        shutdown: &Shutdown,
    ) -> Result<Backend, OptionsError> {
        delivery.check()?;
        Ok(Backend::new("webhook", delivery, Out::Webhook { caller, endpoint, initial_backoff }, shutdown))
    }

    fn new(name: &'static str, delivery: Delivery, out: Out, shutdown: &Shutdown) -> Backend {
        let (out, errors) = (Arc::new(out), Arc::new(Counter::default()));
        let batches = (delivery.mode == Mode::Batch).then(|| {
            let (sender, receiver) = mpsc::channel(delivery.buffer_events_max);
            let batching = Batching { name, delivery, out: out.clone(), errors: errors.clone() };
            task::spawn("audit-batches", batching.run(receiver, shutdown.clone()));
            sender
        });
        Backend { name, mode: delivery.mode, delivery, out, batches, errors }
    }

    /// Hands an event over. False when it is lost.
    pub async fn process(&self, facts: &Facts, stage: Stage, at: Timestamp) -> bool {
        let Some(rendered) = self.render(facts, stage, at) else {
            tracing::error!(backend = self.name, "an audit event is too large even after truncating");
            self.errors.inc();
            return false;
        };
        if let Some(batches) = &self.batches {
            let taken = batches.try_send(rendered).is_ok();
            if !taken {
                tracing::error!(backend = self.name, "an audit event is lost: the buffer is full");
                self.errors.inc();
            }
            return taken;
        }
        match self.out.send(&[rendered], at).await {
            Ok(()) => true,
            Err(error) => {
                report(self.name, &error, 1);
                self.errors.inc();
                false
            }
        }
    }

    fn render(&self, facts: &Facts, stage: Stage, at: Timestamp) -> Option<Bytes> {
        if let Out::Log { format: Format::Legacy, .. } = self.out.as_ref() {
            return Some(facts.legacy(stage).into());
        }
        let mut json = facts.json(stage, at);
        if self.delivery.truncate && json.len() > self.delivery.event_bytes_max {
            if facts.level >= Level::Request {
                json = facts.truncated_json(stage, at);
            }
            if json.len() > self.delivery.event_bytes_max {
                return None;
            }
        }
        Some(json.into())
    }
}

impl Out {
    async fn send(&self, events: &[Bytes], now: Timestamp) -> Result<(), SendError> {
        match self {
            Out::Log { writer, .. } => {
                let mut writer = writer.lock();
                events.iter().try_for_each(|event| writer.line(event, now))?;
                Ok(())
            }
            Out::Webhook { caller, endpoint, initial_backoff } => {
                let body = list(events);
                let mut pause = *initial_backoff;
                for attempt in 1.. {
                    let Err(error) = caller.post(endpoint, body.clone(), CALL_MAX).await else { break };
                    if attempt >= ATTEMPTS || !may_pass(&error) {
                        return Err(error.into());
                    }
                    let jitter = 1.0 + rand::rng().random_range(0.0..BACKOFF_JITTER);
                    tokio::time::sleep(pause.mul_f64(jitter)).await;
                    pause = pause.mul_f64(BACKOFF_FACTOR);
                }
                Ok(())
            }
        }
    }
}

/// Worth another attempt: the other side was not to be reached, or was busy.
fn may_pass(error: &CallError) -> bool {
    match &error.cause {
        Cause::Status { code, .. } => *code == 429 || *code >= 500,
        Cause::Request(_) => false,
        _ => true,
    }
}

/// `audit.k8s.io/v1 EventList`.
fn list(events: &[Bytes]) -> Bytes {
    let size: usize = events.iter().map(|event| event.len() + 1).sum();
    let mut out = Vec::with_capacity(size + 80);
    out.extend_from_slice(br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#);
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(event);
    }
    out.extend_from_slice(b"]}");
    out.into()
}

fn report(backend: &str, error: &SendError, events: usize) {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!(backend, %error, source, events, "audit events are lost");
}

/// Gathers events until there are enough, or the first has waited long enough.
struct Batching {
    name: &'static str,
    delivery: Delivery,
    out: Arc<Out>,
    errors: Arc<Counter>,
}

impl Batching {
    async fn run(self, mut events: mpsc::Receiver<Bytes>, shutdown: Shutdown) {
        let mut throttle = Throttle::new(&self.delivery, Instant::now());
        loop {
            let first = tokio::select! {
                biased;
                first = events.recv() => first,
                () = shutdown.cancelled() => None,
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            let due = Instant::now() + self.delivery.batch_wait_max;
            while batch.len() < self.delivery.batch_events_max {
                let next = tokio::select! {
                    biased;
                    next = events.recv() => next,
                    () = tokio::time::sleep_until(due) => None,
                    () = shutdown.cancelled() => events.try_recv().ok(),
                };
                match next {
                    Some(next) => batch.push(next),
                    None => break,
                }
            }
            tokio::time::sleep(throttle.pause(Instant::now())).await;
            for part in parts(&batch, self.delivery.truncate.then_some(self.delivery.batch_bytes_max)) {
                if let Err(error) = self.out.send(part, Timestamp::now()).await {
                    report(self.name, &error, part.len());
                    self.errors.add(part.len() as u64);
                }
            }
        }
    }
}

/// The batch in parts of at most so many bytes.
fn parts(events: &[Bytes], bytes_max: Option<usize>) -> Vec<&[Bytes]> {
    let Some(bytes_max) = bytes_max else { return vec![events] };
    let mut parts = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (index, event) in events.iter().enumerate() {
        if index > from && bytes + event.len() > bytes_max {
            parts.extend(events.get(from..index));
            (from, bytes) = (index, 0);
        }
        bytes += event.len();
    }
    parts.extend(events.get(from..));
    parts
}

/// A bucket of tokens; each batch takes one.
struct Throttle {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Throttle {
    fn new(delivery: &Delivery, now: Instant) -> Throttle {
        let (per_second, burst) = if delivery.throttle {
            (delivery.throttle_per_second, delivery.throttle_burst as f64)
        } else {
            (f64::INFINITY, f64::INFINITY)
        };
        Throttle { per_second, burst, tokens: burst, at: now }
    }

    /// How long the next batch waits.
    fn pause(&mut self, now: Instant) -> Duration {
        if self.burst.is_infinite() {
            return Duration::ZERO;
        }
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst) - 1.0;
        self.at = now;
        Duration::try_from_secs_f64((-self.tokens).max(0.0) / self.per_second).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::options::WebhookOptions;

    #[test]
    fn batches_are_throttled_and_split() {
        let now = Instant::now();
        let mut throttle = Throttle::new(&WebhookOptions::default().delivery, now);
        let pauses: Vec<u128> = (0..17).map(|_| throttle.pause(now).as_millis()).collect();
        assert_eq!(pauses.iter().filter(|pause| **pause == 0).count(), 15);
        assert_eq!(pauses.last(), Some(&200));
        assert_eq!(throttle.pause(now + Duration::from_secs(10)), Duration::ZERO);

        let events: Vec<Bytes> = [3, 3, 3, 9, 1].iter().map(|size| Bytes::from(vec![b'x'; *size])).collect();
        let sizes = |max| parts(&events, max).iter().map(|part| part.len()).collect::<Vec<_>>();
        assert_eq!(sizes(Some(6)), [2, 1, 1, 1]);
        assert_eq!(sizes(None), [5]);
        assert_eq!(
            list(&events[..1]),
            r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[xxx]}"#
        );
    }
}
