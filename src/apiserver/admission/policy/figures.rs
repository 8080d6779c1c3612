//! What the checks of policies cost and came to, under upstream's names.

use std::time::Duration;

use crate::metrics::{Buckets, ByLabels, Histogram, Kind, Text};

/// Upstream's buckets of `apiserver_validating_admission_policy_check_duration_seconds`.
static SECONDS: Buckets = Buckets { bounds: &[500, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000], per_unit: 1e9 };

/// Why a check failed, in the words of upstream's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    None,
    Compile,
    Invalid,
    Budget,
}

/// What became of a check that did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It failed, and the policy ignores that.
    Allow,
    Audit,
    Deny,
    Warn,
}

/// Of ValidatingAdmissionPolicies.
pub struct Validating(ByLabels<4, Histogram>);

/// Of MutatingAdmissionPolicies.
pub struct Mutating(ByLabels<3, Histogram>);

impl ErrorType {
    /// Of the text that a failed check leaves.
    pub fn of(why: &str) -> ErrorType {
        if why.starts_with("compilation") {
            ErrorType::Compile
        } else if why.starts_with("validation failed due to running out of cost budget") {
            ErrorType::Budget
        } else {
            ErrorType::Invalid
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            ErrorType::None => "no_error",
            ErrorType::Compile => "compile_error",
            ErrorType::Invalid => "invalid_error",
            ErrorType::Budget => "out_of_budget",
        }
    }
}

impl Action {
    /// Of a binding's `validationActions`.
    pub fn parse(text: &str) -> Option<Action> {
        match text {
            "Audit" => Some(Action::Audit),
            "Deny" => Some(Action::Deny),
            "Warn" => Some(Action::Warn),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Audit => "audit",
            Action::Deny => "deny",
            Action::Warn => "warn",
        }
    }
}

impl Default for Validating {
    fn default() -> Validating {
        Validating(ByLabels::new(|| Histogram::new(&SECONDS)))
    }
}

impl Validating {
    pub fn observe(&self, policy: &str, binding: &str, action: Action, error: ErrorType, took: Duration) {
        self.0.get([action.as_str(), error.as_str(), policy, binding]).figures.observe_duration(took);
    }

    pub fn write(&self, out: &mut Text) {
        const LABELS: [&str; 4] = ["enforcement_action", "error_type", "policy", "policy_binding"];
        let sets = self.0.all();
        let name = "apiserver_validating_admission_policy_check_duration_seconds";
        out.family(name, Kind::Histogram, "[BETA] How long checks of ValidatingAdmissionPolicies took.");
        sets.iter().for_each(|set| out.histogram(name, &set.labels(LABELS), &set.figures));
        let name = "apiserver_validating_admission_policy_check_total";
        out.family(name, Kind::Counter, "[BETA] Checks of ValidatingAdmissionPolicies, by what came of them.");
        sets.iter().for_each(|set| out.sample(name, &set.labels(LABELS), set.figures.count()));
    }
}

impl Default for Mutating {
    fn default() -> Mutating {
        Mutating(ByLabels::new(|| Histogram::new(&SECONDS)))
    }
}

impl Mutating {
    pub fn observe(&self, policy: &str, binding: &str, error: ErrorType, took: Duration) {
        self.0.get([error.as_str(), policy, binding]).figures.observe_duration(took);
    }

    pub fn write(&self, out: &mut Text) {
        const LABELS: [&str; 3] = ["error_type", "policy", "policy_binding"];
        let sets = self.0.all();
        let name = "apiserver_mutating_admission_policy_check_duration_seconds";
        out.family(name, Kind::Histogram, "[ALPHA] How long mutations of MutatingAdmissionPolicies took.");
        sets.iter().for_each(|set| out.histogram(name, &set.labels(LABELS), &set.figures));
        let name = "apiserver_mutating_admission_policy_check_total";
        out.family(name, Kind::Counter, "[ALPHA] Mutations of MutatingAdmissionPolicies, by what came of them.");
        sets.iter().for_each(|set| out.sample(name, &set.labels(LABELS), set.figures.count()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::policy::input::Stopped;

    #[test]
    fn checks_are_counted_by_what_came_of_them() {
        let (validating, mutating) = (Validating::default(), Mutating::default());
        let took = Duration::from_millis(5);
        validating.observe("p", "b", Action::Deny, ErrorType::None, took);
        validating.observe("p", "b", Action::Allow, ErrorType::of(&Stopped::Budget.text()), took);
        mutating.observe("p", "b", ErrorType::of("compilation error: no"), took);
        let mut text = Text::new(false);
        validating.write(&mut text);
        mutating.write(&mut text);
        let text = text.finish();
        for line in [
            r#"apiserver_validating_admission_policy_check_total{enforcement_action="deny",error_type="no_error",policy="p",policy_binding="b"} 1"#,
            r#"apiserver_validating_admission_policy_check_total{enforcement_action="allow",error_type="out_of_budget",policy="p",policy_binding="b"} 1"#,
            r#"apiserver_validating_admission_policy_check_duration_seconds_bucket{enforcement_action="deny",error_type="no_error",policy="p",policy_binding="b",le="0.0000005"} 0"#,
            r#"apiserver_mutating_admission_policy_check_total{error_type="compile_error",policy="p",policy_binding="b"} 1"#,
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }
}
