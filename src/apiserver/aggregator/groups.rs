//! Groups and versions in discovery's order: all that is served here or elsewhere.

use std::collections::BTreeMap;

use api::custom;

use super::{GROUP, priorities};
use crate::server::ApiServer;

/// A group and its versions, the preferred first.
pub type Group = (String, Vec<String>);

/// Priorities of a group and of one of its versions.
type Priorities = (i64, i64);

/// What is offered. What is served here without an APIService, because somebody deleted that, is not: whoever knows of it
/// is still answered (upstream: requests for it fall through to the server behind the aggregator).
pub fn groups(server: &ApiServer) -> Vec<Group> {
    let aggregator = server.aggregator();
    let (table, made) = (aggregator.table(), aggregator.made.load());
    let registered: BTreeMap<&str, Priorities> =
        table.all.iter().map(|one| (one.name.as_str(), (one.group_priority, one.version_priority))).collect();
    let mut served: BTreeMap<(String, String), Priorities> = own(server)
        .into_iter()
        .filter_map(|(place, priorities)| {
            let name = format!("{}.{}", place.1, place.0);
            match registered.get(name.as_str()) {
                Some(priorities) => Some((place, *priorities)),
                None => (!made.contains(&name)).then_some((place, priorities)),
            }
        })
        .collect();
    for (place, registered) in &table.remote {
        served.insert(place.clone(), (registered.group_priority, registered.version_priority));
    }
    sorted(served)
}

/// A group that is served here, offered or not.
pub fn own_group(server: &ApiServer, name: &str) -> Option<Group> {
    sorted(own(server)).into_iter().find(|(group, _)| group == name)
}

/// Group versions that are served here, but for the one without a name.
fn own(server: &ApiServer) -> BTreeMap<(String, String), Priorities> {
    let places =
        server.rows().into_iter().map(|row| (row.resource.group.to_string(), row.resource.version.to_string()));
    let places = places.filter(|(group, _)| !group.is_empty());
    places
        .map(|place| (priorities::built_in(&place.0, &place.1).unwrap_or(priorities::CUSTOM), place))
        .map(|(priorities, place)| (place, priorities))
        .collect()
}

/// Groups by the highest priority that one of their versions claims, then by name; versions by their own priority, then
/// as versions go.
fn sorted(served: BTreeMap<(String, String), Priorities>) -> Vec<Group> {
    /// A group's priority, and its versions with theirs.
    type Ranked = (i64, Vec<(i64, String)>);
    let mut groups: BTreeMap<String, Ranked> = BTreeMap::new();
    for ((group, version), (group_priority, version_priority)) in served {
        // Nobody comes before the group that says who serves what.
        let group_priority = if group == GROUP { i64::MAX } else { group_priority };
        let entry = groups.entry(group).or_insert((group_priority, Vec::new()));
        entry.0 = entry.0.max(group_priority);
        entry.1.push((version_priority, version));
    }
    let mut groups: Vec<(String, Ranked)> = groups.into_iter().collect();
    groups.sort_by(|(a, (first, _)), (b, (second, _))| second.cmp(first).then_with(|| a.cmp(b)));
    groups
        .into_iter()
        .map(|(group, (_, mut versions))| {
            versions.sort_by(|(a, first), (b, second)| {
                b.cmp(a).then_with(|| custom::priority(second).cmp(&custom::priority(first)))
            });
            (group, versions.into_iter().map(|(_, version)| version).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_priorities_come_first() {
        let served = [
            (("b.example", "v1beta1"), (1000, 100)),
            (("b.example", "v1"), (1000, 100)),
            (("b.example", "v2"), (1000, 100)),
            (("a.example", "v1"), (1000, 10)),
            (("a.example", "v1alpha1"), (20_000, 20)),
            ((GROUP, "v1"), (1, 1)),
            (("apps", "v1"), (17_800, 15)),
        ];
        let served = served.map(|((group, version), priorities)| ((group.to_owned(), version.to_owned()), priorities));
        let sorted = sorted(served.into_iter().collect());
        let text: Vec<String> =
            sorted.iter().map(|(group, versions)| format!("{group}:{}", versions.join(","))).collect();
        assert_eq!(text, ["apiregistration.k8s.io:v1", "a.example:v1alpha1,v1", "apps:v1", "b.example:v2,v1,v1beta1"]);
    }
}
