//! What webhooks cost and what they did, under upstream's names. A call of a hook is counted when it has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::admission::Operation;
use crate::metrics::{Buckets, Histogram, Kind, Text};

/// Upstream: `latencyBuckets` of webhooks.
static BUCKETS: Buckets = Buckets {
    bounds: &[
        5_000_000,
        25_000_000,
        100_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        10_000_000_000,
        25_000_000_000,
    ],
    per_unit: 1e9,
};
/// Larger codes are counted as this one, so that nobody makes labels without end.
const CODE_MAX: u16 = 600;
/// Hooks counted apart; those that come later are not counted. Names come from configurations.
const HOOKS_MAX: usize = 1000;

/// How a call of a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Passed,
    /// It said no, with this code.
    Refused(u16),
    /// It could not be asked; true if that stops the request.
    Unanswered {
        rejected: bool,
    },
    /// What it said could not be done.
    Internal,
}

#[derive(Default)]
pub struct Figures {
    /// By the hook's name and type.
    hooks: Mutex<BTreeMap<(String, &'static str), OfHook>>,
}

#[derive(Default)]
struct OfHook {
    /// By operation and whether the request was rejected.
    durations: BTreeMap<(&'static str, bool), Seconds>,
    /// By operation, code, and whether the request was rejected.
    requests: BTreeMap<(&'static str, u16, bool), u64>,
    /// By operation, type of error, and code.
    rejections: BTreeMap<(&'static str, &'static str, u16), u64>,
    failed_open: u64,
}

struct Seconds(Histogram);

impl Default for Seconds {
    fn default() -> Seconds {
        Seconds(Histogram::new(&BUCKETS))
    }
}

impl Figures {
    /// `kind` is `admit` or `validating`.
    pub fn observe(&self, hook: &str, kind: &'static str, operation: Operation, ended: Ended, took: Duration) {
        let operation = operation.as_str();
        let (rejected, code, error) = match ended {
            Ended::Passed => (false, 200, None),
            Ended::Refused(code) => (true, code.min(CODE_MAX), Some("no_error")),
            Ended::Unanswered { rejected } => (rejected, 0, rejected.then_some("calling_webhook_error")),
            Ended::Internal => (true, 0, Some("apiserver_internal_error")),
        };
        let mut hooks = self.hooks.lock();
        let key = (hook.to_owned(), kind);
        if hooks.len() >= HOOKS_MAX && !hooks.contains_key(&key) {
            return;
        }
        let of_hook = hooks.entry(key).or_default();
        of_hook.durations.entry((operation, rejected)).or_default().0.observe_duration(took);
        *of_hook.requests.entry((operation, code, rejected)).or_default() += 1;
        if let Some(error) = error {
            *of_hook.rejections.entry((operation, error, code)).or_default() += 1;
        }
        if ended == (Ended::Unanswered { rejected: false }) {
            of_hook.failed_open += 1;
        }
    }

    pub fn write(&self, out: &mut Text) {
        let hooks = self.hooks.lock();
        if hooks.is_empty() {
            return;
        }
        let name = "apiserver_admission_webhook_admission_duration_seconds";
        out.family(name, Kind::Histogram, "[STABLE] How long calls of admission webhooks took.");
        for ((hook, kind), of_hook) in hooks.iter() {
            for ((operation, rejected), histogram) in &of_hook.durations {
                let rejected = rejected.to_string();
                let labels = [("name", &**hook), ("operation", operation), ("rejected", &rejected), ("type", kind)];
                out.histogram(name, &labels, &histogram.0);
            }
        }
        let name = "apiserver_admission_webhook_request_total";
        out.family(name, Kind::Counter, "[ALPHA] Calls of admission webhooks by what came of them.");
        for ((hook, kind), of_hook) in hooks.iter() {
            for ((operation, code, rejected), count) in &of_hook.requests {
                let (code, rejected) = (code.to_string(), rejected.to_string());
                let labels = [
                    ("code", &*code),
                    ("name", hook),
                    ("operation", operation),
                    ("rejected", &rejected),
                    ("type", kind),
                ];
                out.sample(name, &labels, count);
            }
        }
        let name = "apiserver_admission_webhook_rejection_count";
        out.family(name, Kind::Counter, "[ALPHA] Requests that were rejected because of an admission webhook.");
        for ((hook, kind), of_hook) in hooks.iter() {
            for ((operation, error, code), count) in &of_hook.rejections {
                let code = code.to_string();
                let labels = [
                    ("error_type", *error),
                    ("name", hook),
                    ("operation", operation),
                    ("rejection_code", &code),
                    ("type", kind),
                ];
                out.sample(name, &labels, count);
            }
        }
        let name = "apiserver_admission_webhook_fail_open_count";
        out.family(name, Kind::Counter, "[ALPHA] Requests that passed though an admission webhook did not answer.");
        for ((hook, kind), of_hook) in hooks.iter().filter(|(_, of_hook)| of_hook.failed_open > 0) {
            out.sample(name, &[("name", hook), ("type", kind)], of_hook.failed_open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_what_came_of_them() {
        let figures = Figures::default();
        let observe = |ended| {
            figures.observe("a.b.c", "validating", Operation::Create, ended, Duration::from_millis(30));
        };
        observe(Ended::Passed);
        observe(Ended::Refused(999));
        observe(Ended::Unanswered { rejected: false });
        observe(Ended::Unanswered { rejected: true });
        let mut out = Text::new(false);
        figures.write(&mut out);
        let text = out.finish();
        for line in [
            r#"apiserver_admission_webhook_request_total{code="200",name="a.b.c",operation="CREATE",rejected="false",type="validating"} 1"#,
            r#"apiserver_admission_webhook_rejection_count{error_type="no_error",name="a.b.c",operation="CREATE",rejection_code="600",type="validating"} 1"#,
            r#"apiserver_admission_webhook_rejection_count{error_type="calling_webhook_error",name="a.b.c",operation="CREATE",rejection_code="0",type="validating"} 1"#,
            r#"apiserver_admission_webhook_fail_open_count{name="a.b.c",type="validating"} 1"#,
            r#"apiserver_admission_webhook_admission_duration_seconds_bucket{name="a.b.c",operation="CREATE",rejected="true",type="validating",le="0.1"} 2"#,
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }
}
