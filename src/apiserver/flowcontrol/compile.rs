//! From the configuration objects to what requests are classified and seated with (upstream: `cfgMeal`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Fields;
use http::HeaderValue;
use serde_json::Value;

use super::figures::SchemaFigures;
use super::level::{Bounds, Level};
use super::objects;
use super::queueset::Queuing;
use super::schema::{self, Digest, Schema};
use super::shuffle;

const EXEMPT: &str = "exempt";
/// A request may be taken to need at most this part of its level's nominal seats.
const SEATS_MAX_PART: f64 = 0.15;
/// More queues than this in one level are not made, whatever its object says.
const QUEUES_MAX: usize = 10_000;

/// FlowSchemas in the order in which they are tried, and the levels in the order of their names.
#[derive(Default)]
pub struct Compiled {
    pub schemas: Vec<Arc<Schema>>,
    pub levels: Vec<Arc<Level>>,
}

impl Compiled {
    /// The first FlowSchema that matches. There is always one: the last takes everybody.
    pub fn classify(&self, digest: &Digest<'_>) -> Option<&Arc<Schema>> {
        self.schemas.iter().find(|schema| schema.matches(digest)).or(self.schemas.last())
    }
}

/// Compiles; levels and figures of the same name go on. Also which FlowSchemas name a level that is there.
pub fn compile(
    before: &Compiled,
    levels: &[Value],
    schemas: &[Value],
    seats: u64,
) -> (Compiled, BTreeMap<String, bool>) {
    let mut by_name: BTreeMap<&str, &Value> = BTreeMap::new();
    let mandatory_levels = objects::mandatory_levels();
    // What must be there is imagined where it is not.
    for level in mandatory_levels.iter().chain(levels.iter().filter(|level| is_sound(level))) {
        by_name.insert(level.part("metadata").text("name"), level);
    }
    let shares: i64 = by_name.values().map(|level| shares(level)).sum();
    let mut made: BTreeMap<&str, (Arc<Level>, HeaderValue)> = BTreeMap::new();
    for (name, object) in by_name {
        let bounds = bounds(object, seats, shares.max(1));
        let level = match before.levels.iter().find(|level| level.name == name) {
            Some(level) => {
                level.set_bounds(bounds);
                level.clone()
            }
            None => Arc::new(Level::new(name, name == EXEMPT, bounds)),
        };
        made.insert(name, (level, schema::uid(object)));
    }
    let mut found = BTreeMap::new();
    let mut compiled: Vec<(i64, Arc<Schema>)> = Vec::new();
    let name = |schema: &Value| schema.part("metadata").text("name").to_owned();
    let imagined = objects::mandatory_schemas();
    let imagined = imagined.iter().filter(|one| !schemas.iter().any(|schema| name(schema) == name(one)));
    for object in schemas.iter().chain(imagined) {
        let spec = object.part("spec");
        let level = made.get(spec.part("priorityLevelConfiguration").text("name"));
        found.insert(name(object), level.is_some());
        let Some((level, level_uid)) = level else { continue };
        let same = |one: &&Arc<Schema>| one.name == name(object) && Arc::ptr_eq(&one.level, level);
        let figures = before.schemas.iter().find(same).map(|one| one.figures.clone());
        let figures = figures.unwrap_or_else(|| Arc::new(SchemaFigures::new()));
        let schema = Schema::new(object, level.clone(), level_uid.clone(), figures);
        compiled.push((spec.int("matchingPrecedence").unwrap_or(1000), Arc::new(schema)));
    }
    compiled.sort_by(|(one, a), (other, b)| one.cmp(other).then_with(|| a.name.cmp(&b.name)));
    let schemas = compiled.into_iter().map(|(_, schema)| schema).collect();
    (Compiled { schemas, levels: made.into_values().map(|(level, _)| level).collect() }, found)
}

/// Broken configurations are taken for missing: only `exempt` is exempt, and what queues has queues.
fn is_sound(level: &Value) -> bool {
    let spec = level.part("spec");
    let exempt = spec.text("type") == "Exempt";
    let response = spec.part("limited").part("limitResponse");
    let queuing = response.at("queuing");
    exempt == (level.part("metadata").text("name") == EXEMPT)
        && exempt != spec.has("limited")
        && (exempt || (response.text("type") == "Reject") == queuing.is_none())
        && queuing.is_none_or(|queuing| {
            let number = |field| queuing.int(field).and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
            shuffle::fits(number("queues"), number("handSize")) && number("queues") <= QUEUES_MAX
        })
}

fn commons(level: &Value) -> &Value {
    let spec = level.part("spec");
    spec.part(if spec.text("type") == "Exempt" { "exempt" } else { "limited" })
}

fn shares(level: &Value) -> i64 {
    let default = if level.part("spec").text("type") == "Exempt" { 0 } else { 30 };
    commons(level).int("nominalConcurrencyShares").unwrap_or(default).max(0)
}

fn bounds(level: &Value, seats: u64, all_shares: i64) -> Bounds {
    let nominal = (seats as f64 * shares(level) as f64 / all_shares as f64).ceil();
    let part = |field: &str| {
        let percent = commons(level).int(field)?;
        Some((nominal * percent.clamp(0, 100_000) as f64 / 100.0).round())
    };
    let lendable = part("lendablePercent").unwrap_or(0.0).min(nominal);
    let borrowing = part("borrowingLimitPercent").unwrap_or(seats as f64);
    let queuing = level.part("spec").part("limited").part("limitResponse").at("queuing").map(|queuing| {
        let number =
            |field: &str, default: i64| usize::try_from(queuing.int(field).unwrap_or(default)).unwrap_or_default();
        Queuing {
            queues: number("queues", 64),
            hand_size: number("handSize", 8),
            queue_length_max: number("queueLengthLimit", 50),
        }
    });
    let hand = queuing.map_or(1, |queuing| queuing.hand_size.max(1));
    let seats_max = (nominal * SEATS_MAX_PART).ceil().min((nominal / hand as f64).floor()).max(1.0);
    Bounds {
        nominal: nominal as u64,
        min: (nominal - lendable) as u64,
        max: (nominal + borrowing) as u64,
        seats_max: seats_max as u64,
        queuing,
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::About;
    use super::*;
    use crate::identity::Identity;

    fn standard() -> Compiled {
        let (levels, schemas) = (objects::levels(), objects::schemas());
        let (compiled, found) = compile(&Compiled::default(), &levels, &schemas, 600);
        assert!(found.len() == schemas.len() && found.values().all(|found| *found));
        compiled
    }

    fn class(compiled: &Compiled, user: &Identity, verb: &str, about: About<'_>) -> String {
        let schema = compiled.classify(&Digest { user, verb, about }).unwrap();
        format!("{} {} {}", schema.name, schema.level.name, schema.flow(&Digest { user, verb, about }))
    }

    #[test]
    fn requests_are_classified_as_upstream_classifies_them() {
        let compiled = standard();
        let about =
            |group, resource, subresource, namespace| About::Resource { group, resource, subresource, namespace };
        let leases = about("coordination.k8s.io", "leases", "", "kube-system");
        let pods = about("", "pods", "", "shop");
        let (node, manager) = (Identity::node("n1"), Identity::user("system:kube-controller-manager", [""; 0]));
        let (account, system) =
            (Identity::service_account("shop", "web"), Identity::service_account("kube-system", "x"));
        for (user, verb, about, expected) in [
            (&Identity::master("admin"), "list", pods, "exempt exempt "),
            (&Identity::anonymous(), "get", About::Path("/healthz/ping"), "probes exempt "),
            (&Identity::anonymous(), "get", About::Path("/healthzz"), "global-default global-default system:anonymous"),
            (&node, "update", about("", "nodes", "status", ""), "system-node-high node-high system:node:n1"),
            (&node, "get", about("", "nodes", "proxy", ""), "system-nodes system system:node:n1"),
            (&node, "list", pods, "system-nodes system system:node:n1"),
            (&manager, "update", leases, "system-leader-election leader-election system:kube-controller-manager"),
            (&manager, "patch", leases, "kube-controller-manager workload-high kube-system"),
            (&system, "get", leases, "system-leader-election leader-election system:serviceaccount:kube-system:x"),
            (&system, "get", pods, "kube-system-service-accounts workload-high shop"),
            (&account, "get", pods, "service-accounts workload-low system:serviceaccount:shop:web"),
            (&Identity::user("jane", [""; 0]), "get", pods, "global-default global-default jane"),
        ] {
            assert_eq!(class(&compiled, user, verb, about), expected);
        }
    }

    #[test]
    fn seats_are_divided_by_shares() {
        let levels: Vec<String> = standard()
            .levels
            .iter()
            .map(|level| {
                let bounds = level.bounds();
                format!("{} {} {} {} {}", level.name, bounds.nominal, bounds.min, level.limit(), bounds.seats_max)
            })
            .collect();
        assert_eq!(
            levels,
            [
                "catch-all 13 13 13 2",
                "exempt 0 0 0 1",
                "global-default 49 24 37 8",
                "leader-election 25 25 25 4",
                "node-high 98 73 86 15",
                "system 74 50 62 12",
                "workload-high 98 49 74 15",
                "workload-low 245 24 135 37",
            ]
        );
    }

    #[test]
    fn what_is_missing_or_broken_is_imagined_or_left_out() {
        let mut schemas = objects::schemas();
        schemas.retain(|schema| schema.part("metadata").text("name") == "service-accounts");
        let mut levels = objects::levels();
        let broken = levels.iter_mut().find(|level| level.part("metadata").text("name") == "workload-low");
        broken.unwrap()["spec"]["limited"]["limitResponse"]["queuing"]["handSize"] = 1000.into();
        let (compiled, found) = compile(&Compiled::default(), &levels, &schemas, 600);
        assert!(!found["service-accounts"]);
        let names: Vec<&str> = compiled.schemas.iter().map(|schema| schema.name.as_str()).collect();
        assert_eq!(names, ["exempt", "catch-all"]);
        let (again, _) = compile(&compiled, &[], &[], 600);
        assert!(again.levels.iter().all(|level| compiled.levels.iter().any(|old| Arc::ptr_eq(old, level))));
    }
}
