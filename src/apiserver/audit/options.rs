//! What auditing is told. Defaults are upstream's.

use std::path::PathBuf;
use std::time::Duration;

use super::log::LogFile;

/// Nothing is recorded without a policy and a backend.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--audit-policy-file`.
    pub policy_file: Option<PathBuf>,
    pub log: LogOptions,
    pub webhook: WebhookOptions,
}

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// No file, no log.
    pub file: LogFile,
    pub format: Format,
    pub delivery: Delivery,
}

#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// A kubeconfig; none, no webhook.
    pub config_file: Option<PathBuf>,
    /// The pause before the first of the repeated attempts.
    pub initial_backoff: Duration,
    pub delivery: Delivery,
}

/// How events reach a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delivery {
    pub mode: Mode,
    pub buffer_events_max: usize,
    pub batch_events_max: usize,
    pub batch_wait_max: Duration,
    /// Batches per second on average, and at once.
    pub throttle: bool,
    pub throttle_per_second: f64,
    pub throttle_burst: usize,
    pub truncate: bool,
    pub event_bytes_max: usize,
    pub batch_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Events are gathered and go out beside the requests.
    Batch,
    /// A request waits until its events are out, and goes on if they fail.
    Blocking,
    /// The same, but a request whose first event cannot be stored is refused.
    BlockingStrict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Legacy,
}

/// Auditing cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("{}: cannot be read", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("audit policy: {why}")]
    Policy { why: String },
    #[error("initializing audit webhook")]
    Webhook(#[source] crate::webhook::EndpointError),
    #[error("invalid audit {what}, must be a positive number")]
    NotPositive { what: &'static str },
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        let file =
            LogFile { path: PathBuf::new(), megabytes_max: 100, days_max: 366, backups_max: 100, compress: false };
        let delivery = Delivery { mode: Mode::Blocking, batch_events_max: 1, throttle: false, ..Delivery::BATCH };
        LogOptions { file, format: Format::Json, delivery }
    }
}

impl Default for WebhookOptions {
    fn default() -> WebhookOptions {
        WebhookOptions { config_file: None, initial_backoff: Duration::from_secs(10), delivery: Delivery::BATCH }
    }
}

impl Delivery {
    const BATCH: Delivery = Delivery {
        mode: Mode::Batch,
        buffer_events_max: 10_000,
        batch_events_max: 400,
        batch_wait_max: Duration::from_secs(30),
        throttle: true,
        throttle_per_second: 10.0,
        throttle_burst: 15,
        truncate: false,
        event_bytes_max: 100 << 10,
        batch_bytes_max: 10 << 20,
    };

    pub(super) fn check(&self) -> Result<(), OptionsError> {
        let wrong = [
            ("batch buffer size", self.buffer_events_max == 0),
            ("max batch size", self.batch_events_max == 0),
            ("throttle QPS", self.throttle && self.throttle_per_second.is_nan() | (self.throttle_per_second <= 0.0)),
            ("throttle burst", self.throttle && self.throttle_burst == 0),
            ("truncate max event size", self.truncate && self.event_bytes_max == 0),
            ("truncate max batch size", self.truncate && self.batch_bytes_max < self.event_bytes_max),
        ];
        match wrong.into_iter().find(|(_, wrong)| *wrong) {
            Some((what, _)) => Err(OptionsError::NotPositive { what }),
            None => Ok(()),
        }
    }
}
