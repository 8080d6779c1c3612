//! What is counted of decisions, under upstream's names.

use std::sync::Arc;
use std::time::Duration;

use super::Decision;
use super::chain::Step;
use crate::metrics::{ByLabels, Counter, Histogram, Kind, LATENCY_SECONDS, Set, Text};

/// In the order of [`Outcome`].
const OUTCOMES: [&str; 3] = ["allowed", "denied", "no-opinion"];

pub struct Figures {
    took: [Histogram; OUTCOMES.len()],
    /// By type and name of the authorizer; they outlive a change of the configuration.
    decided: ByLabels<2, Decided>,
}

/// What one authorizer said; that it has no opinion is not counted, as upstream has it.
#[derive(Default)]
struct Decided {
    allowed: Counter,
    denied: Counter,
}

/// An authorizer of the chain with what is counted of it.
pub struct Link {
    pub step: Step,
    decided: Arc<Set<2, Decided>>,
}

impl Default for Figures {
    fn default() -> Figures {
        let took = OUTCOMES.map(|_| Histogram::new(&LATENCY_SECONDS));
        Figures { took, decided: ByLabels::new(Decided::default) }
    }
}

impl Figures {
    pub fn link(&self, step: Step) -> Link {
        let (kind, name) = match &step {
            Step::AlwaysAllow => ("AlwaysAllow", "alwaysallow"),
            Step::AlwaysDeny => ("AlwaysDeny", "alwaysdeny"),
            Step::Node => ("Node", "node"),
            Step::Rbac => ("RBAC", "rbac"),
            Step::Webhook(webhook) => ("Webhook", webhook.name.as_str()),
        };
        Link { decided: self.decided.get([kind, name]), step }
    }

    /// It is settled whether a request may be made.
    pub fn settled(&self, decision: &Decision, took: Duration) {
        let [allowed, denied, no_opinion] = &self.took;
        match decision {
            Decision::Allow { .. } => allowed.observe_duration(took),
            Decision::Deny { .. } => denied.observe_duration(took),
            Decision::NoOpinion { .. } => no_opinion.observe_duration(took),
        }
    }

    /// The same of one that is allowed without a reason.
    pub fn allowed(&self, took: Duration) {
        let [allowed, ..] = &self.took;
        allowed.observe_duration(took);
    }

    pub fn write(&self, out: &mut Text) {
        let outcomes = || OUTCOMES.iter().zip(&self.took).filter(|(_, took)| took.count() > 0);
        let name = "authorization_attempts_total";
        out.family(name, Kind::Counter, "[ALPHA] Requests that needed permission, by what was decided.");
        outcomes().for_each(|(result, took)| out.sample(name, &[("result", result)], took.count()));
        let name = "authorization_duration_seconds";
        out.family(name, Kind::Histogram, "[ALPHA] How long decisions on requests took, by what was decided.");
        outcomes().for_each(|(result, took)| out.histogram(name, &[("result", result)], took));
        let name = "apiserver_authorization_decisions_total";
        let help = "[ALPHA] Decisions that settled a question, by the authorizer that made them.";
        out.family(name, Kind::Counter, help);
        for set in self.decided.all() {
            let [kind, authorizer] = &set.values;
            let counts = [("allowed", &set.figures.allowed), ("denied", &set.figures.denied)];
            for (decision, count) in counts.into_iter().filter(|(_, count)| count.get() > 0) {
                let labels = [("decision", decision), ("name", authorizer), ("type", kind)];
                out.sample(name, &labels, count.get());
            }
        }
    }
}

impl Link {
    pub fn allows(&self) {
        self.decided.figures.allowed.inc();
    }

    pub fn denies(&self) {
        self.decided.figures.denied.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_counted_by_who_made_them() {
        let figures = Figures::default();
        let link = figures.link(Step::Rbac);
        link.allows();
        figures.link(Step::Rbac).allows();
        figures.link(Step::AlwaysDeny).denies();
        figures.allowed(Duration::from_millis(1));
        figures.settled(&Decision::no_opinion(), Duration::ZERO);
        let mut text = Text::new(false);
        figures.write(&mut text);
        let text = text.finish();
        for line in [
            "authorization_attempts_total{result=\"allowed\"} 1",
            "authorization_attempts_total{result=\"no-opinion\"} 1",
            "authorization_duration_seconds_bucket{result=\"allowed\",le=\"0.001\"} 1",
            "apiserver_authorization_decisions_total{decision=\"allowed\",name=\"rbac\",type=\"RBAC\"} 2",
            "apiserver_authorization_decisions_total{decision=\"denied\",name=\"alwaysdeny\",type=\"AlwaysDeny\"} 1",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
        assert!(!text.contains("result=\"denied\""), "{text}");
    }
}
