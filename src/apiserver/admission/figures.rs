//! How long each part of the chain takes (upstream: `apiserver_admission_controller_admission_duration_seconds`).

use std::time::Duration;

use super::Operation;
use crate::metrics::{ADMISSION_SECONDS, Histogram, Kind, Text};

const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];
const STEPS: [Step; 2] = [Step::Admit, Step::Validate];
const NAME: &str = "apiserver_admission_controller_admission_duration_seconds";

/// Which of its two turns a part has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Admit,
    Validate,
}

/// Something of the chain under its name, with what is counted of it.
pub struct Part<T> {
    pub name: &'static str,
    pub of: T,
    /// By step, operation, and whether it refused; all there from the start, so that counting looks nothing up.
    took: [[[Histogram; 2]; OPERATIONS.len()]; STEPS.len()],
}

impl<T> Part<T> {
    pub fn new(name: &'static str, of: T) -> Part<T> {
        let histogram = |_| Histogram::new(&ADMISSION_SECONDS);
        let took = STEPS.map(|_| OPERATIONS.map(|_| [false, true].map(histogram)));
        Part { name, of, took }
    }

    pub fn took(&self, step: Step, operation: Operation, admitted: bool, took: Duration) {
        let [admit, validate] = &self.took;
        let [create, update, delete, connect] = match step {
            Step::Admit => admit,
            Step::Validate => validate,
        };
        let [fine, refused] = match operation {
            Operation::Create => create,
            Operation::Update => update,
            Operation::Delete => delete,
            Operation::Connect => connect,
        };
        if admitted { fine } else { refused }.observe_duration(took);
    }

    fn write(&self, out: &mut Text) {
        for (step, operations) in ["admit", "validate"].into_iter().zip(&self.took) {
            for (operation, results) in OPERATIONS.iter().zip(operations) {
                for (rejected, histogram) in ["false", "true"].into_iter().zip(results) {
                    if histogram.count() > 0 {
                        let operation = operation.as_str();
                        let labels =
                            [("name", self.name), ("operation", operation), ("rejected", rejected), ("type", step)];
                        out.histogram(NAME, &labels, histogram);
                    }
                }
            }
        }
    }
}

/// For `/metrics`.
pub fn write<P, S>(plugins: &[Part<P>], stages: &[Part<S>], out: &mut Text) {
    out.family(NAME, Kind::Histogram, "[STABLE] How long each admission plugin takes, by operation and turn.");
    plugins.iter().for_each(|part| part.write(out));
    stages.iter().for_each(|part| part.write(out));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_written() {
        let part = Part::new("Priority", ());
        part.took(Step::Admit, Operation::Create, true, Duration::from_millis(1));
        part.took(Step::Validate, Operation::Update, false, Duration::from_millis(7));
        let mut out = Text::new(false);
        write(&[part], &[] as &[Part<()>], &mut out);
        let text = out.finish();
        let of = |labels: &str| format!("{NAME}_count{{name=\"Priority\",{labels}}} 1\n");
        assert!(text.contains(&of("operation=\"CREATE\",rejected=\"false\",type=\"admit\"")), "{text}");
        assert!(text.contains(&of("operation=\"UPDATE\",rejected=\"true\",type=\"validate\"")), "{text}");
        assert_eq!(text.matches("_count{").count(), 2);
    }
}
