//! What is counted of encryption and decryption, under upstream's names.

use std::time::Instant;

use super::EncryptionError;
use crate::metrics::{Buckets, ByLabels, Counter, Histogram, Kind, Text, doubling};

/// Upstream's buckets: five microseconds, and twice as much each time.
static SECONDS: Buckets = Buckets { bounds: &doubling::<25>(5_000), per_unit: 1e9 };
/// What upstream says of errors that are none of gRPC's.
const NOT_GRPC: &str = "unknown-non-grpc";

/// Which way a value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    FromStorage,
    ToStorage,
}

pub struct Figures {
    /// By direction and prefix.
    took: ByLabels<2, Histogram>,
    /// By group, plural, direction, prefix and status.
    done: ByLabels<5, Counter>,
}

impl Default for Figures {
    fn default() -> Figures {
        Figures { took: ByLabels::new(|| Histogram::new(&SECONDS)), done: ByLabels::new(Counter::default) }
    }
}

impl Figures {
    /// Counts what was done since `began` for a resource (group and plural) with the provider of this prefix.
    pub fn count<T>(
        &self,
        (group, plural): (&str, &str),
        direction: Direction,
        prefix: &str,
        began: Instant,
        done: &Result<T, EncryptionError>,
    ) {
        let direction = match direction {
            Direction::FromStorage => "from_storage",
            Direction::ToStorage => "to_storage",
        };
        if done.is_ok() {
            self.took.get([direction, prefix]).figures.observe_duration(began.elapsed());
        }
        let status = if done.is_ok() { "OK" } else { NOT_GRPC };
        self.done.get([group, plural, direction, prefix, status]).figures.inc();
    }

    pub fn write(&self, out: &mut Text) {
        let name = "apiserver_storage_transformation_duration_seconds";
        out.family(name, Kind::Histogram, "[ALPHA] How long values took to be encrypted and decrypted.");
        for set in self.took.all() {
            let [direction, prefix] = &set.values;
            out.histogram(name, &[("transformation_type", direction), ("transformer_prefix", prefix)], &set.figures);
        }
        let name = "apiserver_storage_transformation_operations_total";
        out.family(name, Kind::Counter, "[ALPHA] Values that were encrypted and decrypted, by what came of it.");
        for set in self.done.all() {
            let [group, plural, direction, prefix, status] = &set.values;
            let resource = if group.is_empty() { plural.to_string() } else { format!("{plural}.{group}") };
            let labels = [
                ("resource", resource.as_str()),
                ("status", status),
                ("transformation_type", direction),
                ("transformer_prefix", prefix),
            ];
            out.sample(name, &labels, set.figures.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_counted() {
        let figures = Figures::default();
        let (secrets, prefix, now) = (("", "secrets"), "k8s:enc:aescbc:v1:", Instant::now());
        figures.count(secrets, Direction::ToStorage, prefix, now, &Ok(()));
        figures.count(("a.b", "cs"), Direction::FromStorage, prefix, now, &Err::<(), _>(EncryptionError::Open));
        let mut text = Text::new(false);
        figures.write(&mut text);
        let text = text.finish();
        let prefix = "transformer_prefix=\"k8s:enc:aescbc:v1:\"";
        for line in [
            format!(
                "apiserver_storage_transformation_duration_seconds_count{{transformation_type=\"to_storage\",{prefix}}} 1"
            ),
            format!(
                "apiserver_storage_transformation_operations_total{{resource=\"secrets\",status=\"OK\",transformation_type=\"to_storage\",{prefix}}} 1"
            ),
            format!(
                "apiserver_storage_transformation_operations_total{{resource=\"cs.a.b\",status=\"unknown-non-grpc\",transformation_type=\"from_storage\",{prefix}}} 1"
            ),
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
        assert!(
            !text.contains("duration_seconds_count{transformation_type=\"from_storage\""),
            "failures are not timed"
        );
    }
}
