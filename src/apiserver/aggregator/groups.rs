//! Groups and versions in discovery's order: all that is served here or elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use api::custom;

use super::{GROUP, priorities};
use crate::server::ApiServer;

/// Named groups with their versions, the preferred first.
pub fn groups(server: &ApiServer) -> Vec<(String, Vec<String>)> {
    let rows = server.rows();
    let own = rows.iter().map(|row| (row.resource.group.to_string(), row.resource.version.to_string()));
    let own: BTreeSet<(String, String)> = own.filter(|(group, _)| !group.is_empty()).collect();
    let table = server.aggregator().table();
    let mut served: BTreeMap<(String, String), (i64, i64)> = own
        .into_iter()
        .map(|place| (priorities::built_in(&place.0, &place.1).unwrap_or(priorities::CUSTOM), place))
        .map(|(priorities, place)| (place, priorities))
        .collect();
    for (place, registered) in &table.remote {
        served.insert(place.clone(), (registered.group_priority, registered.version_priority));
    }
    sorted(served)
}

/// Groups by the highest priority that one of their versions claims, then by name; versions by their own priority, then
/// as versions go.
fn sorted(served: BTreeMap<(String, String), (i64, i64)>) -> Vec<(String, Vec<String>)> {
    /// A group's priority, and its versions with theirs.
    type Group = (i64, Vec<(i64, String)>);
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for ((group, version), (group_priority, version_priority)) in served {
        // Nobody comes before the group that says who serves what.
        let group_priority = if group == GROUP { i64::MAX } else { group_priority };
        let entry = groups.entry(group).or_insert((group_priority, Vec::new()));
        entry.0 = entry.0.max(group_priority);
        entry.1.push((version_priority, version));
    }
    let mut groups: Vec<(String, Group)> = groups.into_iter().collect();
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
