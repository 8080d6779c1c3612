//! What is counted of who asks, under upstream's names.

use std::time::{Duration, Instant};

use crate::metrics::{Buckets, Counter, DEFAULT_SECONDS, Gauge, Histogram, Kind, LATENCY_SECONDS, Text};

const RESULTS: [&str; 3] = ["success", "failure", "error"];
/// Users that upstream tells apart; those with an address for a name are one, all others another.
const USERS: [&str; 7] =
    ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default", "email_id", "other"];

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// Upstream's buckets of `apiserver_client_certificate_expiration_seconds`.
static REMAINING_SECONDS: Buckets = Buckets {
    bounds: &[
        0,
        HOUR / 2,
        HOUR,
        2 * HOUR,
        6 * HOUR,
        12 * HOUR,
        DAY,
        2 * DAY,
        4 * DAY,
        7 * DAY,
        30 * DAY,
        3 * 30 * DAY,
        6 * 30 * DAY,
        12 * 30 * DAY,
    ],
    per_unit: 1.0,
};

/// How it ended that somebody was to be identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended<'a> {
    /// It is this user.
    Success(&'a str),
    /// Nothing was shown.
    Failure,
    /// What was shown is of no use.
    Error,
}

pub struct Figures {
    took: [Histogram; RESULTS.len()],
    users: [Counter; USERS.len()],
    certificates: Histogram,
}

/// Of the cache of tokens.
pub struct TokenFigures {
    hits: Histogram,
    misses: Histogram,
    fetched: Counter,
    failed: Counter,
    fetching: Gauge,
}

/// Counts a token that is looked at while it is.
pub struct Fetch<'a> {
    figures: &'a TokenFigures,
    since: Instant,
    fine: bool,
}

impl Default for Figures {
    fn default() -> Figures {
        Figures {
            took: RESULTS.map(|_| Histogram::new(&LATENCY_SECONDS)),
            users: Default::default(),
            certificates: Histogram::new(&REMAINING_SECONDS),
        }
    }
}

impl Figures {
    pub fn identified(&self, ended: Ended<'_>, took: Duration) {
        let [success, failure, error] = &self.took;
        match ended {
            Ended::Success(user) => {
                let shown = category(user);
                let at = USERS.iter().position(|one| *one == shown).unwrap_or(USERS.len() - 1);
                if let Some(counter) = self.users.get(at) {
                    counter.inc();
                }
                success.observe_duration(took);
            }
            Ended::Failure => failure.observe_duration(took),
            Ended::Error => error.observe_duration(took),
        }
    }

    /// A certificate was taken that is good for so many seconds yet.
    pub fn certificate(&self, remaining_seconds: i64) {
        self.certificates.observe(u64::try_from(remaining_seconds).unwrap_or_default());
    }

    pub fn write(&self, out: &mut Text) {
        let name = "authenticated_user_requests";
        out.family(name, Kind::Counter, "[ALPHA] Requests of users that are known, by kind of user.");
        for (user, counter) in USERS.iter().zip(&self.users).filter(|(_, counter)| counter.get() > 0) {
            out.sample(name, &[("username", user)], counter.get());
        }
        let results = || RESULTS.iter().zip(&self.took).filter(|(_, took)| took.count() > 0);
        let name = "authentication_attempts";
        out.family(name, Kind::Counter, "[ALPHA] Requests whose user was asked for, by result.");
        results().for_each(|(result, took)| out.sample(name, &[("result", result)], took.count()));
        let name = "authentication_duration_seconds";
        out.family(name, Kind::Histogram, "[ALPHA] How long it took to find out who asks, by result.");
        results().for_each(|(result, took)| out.histogram(name, &[("result", result)], took));
        let name = "apiserver_client_certificate_expiration_seconds";
        out.family(name, Kind::Histogram, "[ALPHA] How long the certificates of requests are still good for.");
        out.histogram(name, &[], &self.certificates);
    }
}

/// The kind of user that a name is counted as.
fn category(user: &str) -> &str {
    match user {
        "admin" | "client" | "kube_proxy" | "kubelet" | "system:serviceaccount:kube-system:default" => user,
        user if user.contains('@') => "email_id",
        _ => "other",
    }
}

impl Default for TokenFigures {
    fn default() -> TokenFigures {
        TokenFigures {
            hits: Histogram::new(&DEFAULT_SECONDS),
            misses: Histogram::new(&DEFAULT_SECONDS),
            fetched: Counter::default(),
            failed: Counter::default(),
            fetching: Gauge::default(),
        }
    }
}

impl TokenFigures {
    /// The cache knew a token.
    pub fn hit(&self, took: Duration) {
        self.hits.observe_duration(took);
    }

    /// The cache does not know a token, which is looked at from now on.
    pub fn fetch(&self, since: Instant) -> Fetch<'_> {
        self.fetching.add(1);
        Fetch { figures: self, since, fine: false }
    }

    pub fn write(&self, out: &mut Text) {
        // One request waits for each token that is looked at.
        let name = "authentication_token_cache_active_fetch_count";
        out.family(name, Kind::Gauge, "[ALPHA] Tokens that are looked at, and requests that wait for it.");
        out.sample(name, &[("status", "blocked")], self.fetching.get());
        out.sample(name, &[("status", "in_flight")], self.fetching.get());
        let name = "authentication_token_cache_fetch_total";
        out.family(name, Kind::Counter, "[ALPHA] Tokens that were looked at, by result.");
        out.sample(name, &[("status", "error")], self.failed.get());
        out.sample(name, &[("status", "ok")], self.fetched.get());
        let requests = [("hit", &self.hits), ("miss", &self.misses)];
        let name = "authentication_token_cache_request_duration_seconds";
        out.family(name, Kind::Histogram, "[ALPHA] How long answers about tokens took, by whether the cache had them.");
        requests.iter().for_each(|(status, took)| out.histogram(name, &[("status", status)], took));
        let name = "authentication_token_cache_request_total";
        out.family(name, Kind::Counter, "[ALPHA] Questions about tokens, by whether the cache had the answer.");
        requests.iter().for_each(|(status, took)| out.sample(name, &[("status", status)], took.count()));
    }
}

impl Fetch<'_> {
    /// There is an answer, whatever it says.
    pub fn answered(mut self) {
        self.fine = true;
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        let TokenFigures { misses, fetched, failed, fetching, .. } = self.figures;
        fetching.add(-1);
        if self.fine { fetched } else { failed }.inc();
        misses.observe_duration(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_counted_by_kind() {
        let figures = Figures::default();
        for user in ["admin", "a@example.org", "system:node:a", "system:serviceaccount:a:b"] {
            figures.identified(Ended::Success(user), Duration::from_millis(3));
        }
        figures.identified(Ended::Error, Duration::ZERO);
        figures.certificate(DAY as i64);
        figures.certificate(-5);
        let tokens = TokenFigures::default();
        tokens.fetch(Instant::now()).answered();
        drop(tokens.fetch(Instant::now()));
        tokens.hit(Duration::ZERO);
        let _third = tokens.fetch(Instant::now());
        let mut text = Text::new(false);
        figures.write(&mut text);
        tokens.write(&mut text);
        let text = text.finish();
        for line in [
            "authenticated_user_requests{username=\"admin\"} 1",
            "authenticated_user_requests{username=\"email_id\"} 1",
            "authenticated_user_requests{username=\"other\"} 2",
            "authentication_attempts{result=\"success\"} 4",
            "authentication_attempts{result=\"error\"} 1",
            "authentication_duration_seconds_bucket{result=\"success\",le=\"0.002\"} 0",
            "authentication_duration_seconds_bucket{result=\"success\",le=\"0.004\"} 4",
            "authentication_duration_seconds_bucket{result=\"success\",le=\"16.384\"} 4",
            "apiserver_client_certificate_expiration_seconds_bucket{le=\"0\"} 1",
            "apiserver_client_certificate_expiration_seconds_bucket{le=\"86400\"} 2",
            "authentication_token_cache_active_fetch_count{status=\"in_flight\"} 1",
            "authentication_token_cache_fetch_total{status=\"error\"} 1",
            "authentication_token_cache_fetch_total{status=\"ok\"} 1",
            "authentication_token_cache_request_total{status=\"hit\"} 1",
            "authentication_token_cache_request_total{status=\"miss\"} 2",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
    }
}
