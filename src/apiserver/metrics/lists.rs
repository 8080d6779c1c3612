//! What lists cost, by where they were answered from, under upstream's names.

use std::time::Duration;

use api::Resource;

use super::labels::ByLabels;
use super::{Buckets, Counter, Histogram, Kind, Text};

const MS: u64 = 1_000_000;

/// Upstream's buckets of `apiserver_watch_cache_read_wait_seconds`.
static WAIT_SECONDS: Buckets = Buckets {
    bounds: &[
        5 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        200 * MS,
        400 * MS,
        600 * MS,
        800 * MS,
        1000 * MS,
        1250 * MS,
        1500 * MS,
        2000 * MS,
        3000 * MS,
    ],
    per_unit: 1e9,
};

/// Upstream's buckets of `apiserver_watch_list_duration_seconds`.
static WATCH_LIST_SECONDS: Buckets = Buckets {
    bounds: &[
        50 * MS,
        100 * MS,
        200 * MS,
        400 * MS,
        600 * MS,
        800 * MS,
        1000 * MS,
        2000 * MS,
        4000 * MS,
        6000 * MS,
        8000 * MS,
        10_000 * MS,
        15_000 * MS,
        20_000 * MS,
        30_000 * MS,
        45_000 * MS,
        60_000 * MS,
    ],
    per_unit: 1e9,
};

/// By group and resource.
pub struct Lists {
    cache: ByLabels<2, FromCache>,
    storage: ByLabels<2, FromStorage>,
    /// Lists by watching, by scope and version as well: group, resource, scope, version.
    watched: ByLabels<4, Histogram>,
}

#[derive(Default)]
struct FromStorage {
    lists: Counter,
    read: Counter,
    evaluated: Counter,
    returned: Counter,
}

struct FromCache {
    lists: Counter,
    read: Counter,
    returned: Counter,
    /// Reads of the newest state that the cache came to in time, and those that it did not.
    consistent: [Counter; 2],
    waited: Histogram,
    /// Watches that were ended because they fell behind.
    ended: Counter,
}

impl Lists {
    pub fn new() -> Lists {
        let from_cache = || FromCache {
            lists: Counter::default(),
            read: Counter::default(),
            returned: Counter::default(),
            consistent: Default::default(),
            waited: Histogram::new(&WAIT_SECONDS),
            ended: Counter::default(),
        };
        let watched = ByLabels::new(|| Histogram::new(&WATCH_LIST_SECONDS));
        Lists { cache: ByLabels::new(from_cache), storage: ByLabels::new(FromStorage::default), watched }
    }

    /// A list was answered from the watch cache: so many objects were looked at, so many went out.
    pub fn cached(&self, resource: &Resource, read: usize, returned: usize) {
        let set = self.cache.get([&resource.group, &resource.plural]);
        set.figures.lists.inc();
        set.figures.read.add(read as u64);
        set.figures.returned.add(returned as u64);
    }

    /// A list was answered from the store's history.
    pub fn stored(&self, resource: &Resource, read: usize, evaluated: usize, returned: usize) {
        let set = self.storage.get([&resource.group, &resource.plural]);
        set.figures.lists.inc();
        set.figures.read.add(read as u64);
        set.figures.evaluated.add(evaluated as u64);
        set.figures.returned.add(returned as u64);
    }

    /// A read waited for the watch cache to be as new as it wanted; `consistent` ones want the newest state.
    pub fn waited(&self, resource: &Resource, took: Duration, reached: bool, consistent: bool) {
        let set = self.cache.get([&resource.group, &resource.plural]);
        set.figures.waited.observe_duration(took);
        if consistent {
            let [fine, late] = &set.figures.consistent;
            if reached { fine } else { late }.inc();
        }
    }

    /// A watch has sent all that there was.
    pub fn watched(&self, resource: &Resource, scope: &str, took: Duration) {
        let set = self.watched.get([&resource.group, &resource.plural, scope, &resource.version]);
        set.figures.observe_duration(took);
    }

    /// A watch was ended because it fell behind.
    pub fn watch_ended(&self, resource: &Resource) {
        self.cache.get([&resource.group, &resource.plural]).figures.ended.inc();
    }

    pub fn write(&self, out: &mut Text) {
        self.write_cache(out);
        let name = "apiserver_watch_list_duration_seconds";
        out.family(name, Kind::Histogram, "[BETA] How long it took until watches had sent all that there was.");
        for set in self.watched.all() {
            let [group, resource, scope, version] = &set.values;
            let labels = [("group", &**group), ("resource", resource), ("scope", scope), ("version", version)];
            out.histogram(name, &labels, &set.figures);
        }
        let sets = self.storage.all();
        let mut each = |name: &str, help: &str, of: &dyn Fn(&FromStorage) -> u64| {
            out.family(name, Kind::Counter, help);
            for set in &sets {
                let [group, resource] = &set.values;
                out.sample(name, &[("group", group), ("resource", resource)], of(&set.figures));
            }
        };
        each("apiserver_storage_list_total", "[ALPHA] Lists answered from the store.", &|one| one.lists.get());
        let help = "[ALPHA] Objects read from the store for lists.";
        each("apiserver_storage_list_fetched_objects_total", help, &|one| one.read.get());
        let help = "[ALPHA] Objects from the store that were compared with the selectors of lists.";
        each("apiserver_storage_list_evaluated_objects_total", help, &|one| one.evaluated.get());
        let help = "[ALPHA] Objects that lists from the store returned.";
        each("apiserver_storage_list_returned_objects_total", help, &|one| one.returned.get());
    }

    fn write_cache(&self, out: &mut Text) {
        let sets = self.cache.all();
        // Upstream tells which index found the objects; there is one order here.
        const INDEX: (&str, &str) = ("index", "");
        let mut each = |name: &str, help: &str, indexed: bool, of: &dyn Fn(&FromCache) -> u64| {
            out.family(name, Kind::Counter, help);
            for set in sets.iter().filter(|set| of(&set.figures) > 0) {
                let [group, resource] = &set.values;
                let [group, resource] = [("group", &**group), ("resource", &**resource)];
                match indexed {
                    true => out.sample(name, &[group, INDEX, resource], of(&set.figures)),
                    false => out.sample(name, &[group, resource], of(&set.figures)),
                }
            }
        };
        let help = "[ALPHA] Lists answered from the watch cache.";
        each("apiserver_cache_list_total", help, true, &|one| one.lists.get());
        let help = "[ALPHA] Objects of the watch cache that lists looked at.";
        each("apiserver_cache_list_fetched_objects_total", help, true, &|one| one.read.get());
        let help = "[ALPHA] Objects that lists from the watch cache returned.";
        each("apiserver_cache_list_returned_objects_total", help, false, &|one| one.returned.get());
        let help = "[ALPHA] Watches that were ended because they fell behind.";
        each("apiserver_terminated_watchers_total", help, false, &|one| one.ended.get());
        let name = "apiserver_watch_cache_consistent_read_total";
        out.family(name, Kind::Counter, "[ALPHA] Reads of the newest state from the watch cache.");
        for set in &sets {
            let [group, resource] = &set.values;
            for (success, count) in ["true", "false"].into_iter().zip(&set.figures.consistent) {
                if count.get() > 0 {
                    let labels =
                        [("fallback", "false"), ("group", group), ("resource", resource), ("success", success)];
                    out.sample(name, &labels, count.get());
                }
            }
        }
        let name = "apiserver_watch_cache_read_wait_seconds";
        out.family(name, Kind::Histogram, "[ALPHA] How long reads waited for the watch cache to be new enough.");
        for set in sets.iter().filter(|set| set.figures.waited.count() > 0) {
            let [group, resource] = &set.values;
            out.histogram(name, &[("group", group), ("resource", resource)], &set.figures.waited);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted_by_where_they_came_from() {
        let lists = Lists::new();
        let pods = Resource::new("", "v1", "pods");
        lists.cached(&pods, 10, 3);
        lists.cached(&pods, 10, 4);
        lists.stored(&pods, 7, 6, 5);
        lists.waited(&pods, Duration::from_millis(30), true, true);
        lists.waited(&pods, Duration::ZERO, true, false);
        lists.watched(&pods, "cluster", Duration::from_millis(70));
        let mut text = Text::new(false);
        lists.write(&mut text);
        let text = text.finish();
        for line in [
            "apiserver_cache_list_total{group=\"\",index=\"\",resource=\"pods\"} 2",
            "apiserver_cache_list_fetched_objects_total{group=\"\",index=\"\",resource=\"pods\"} 20",
            "apiserver_cache_list_returned_objects_total{group=\"\",resource=\"pods\"} 7",
            "apiserver_storage_list_total{group=\"\",resource=\"pods\"} 1",
            "apiserver_storage_list_fetched_objects_total{group=\"\",resource=\"pods\"} 7",
            "apiserver_storage_list_evaluated_objects_total{group=\"\",resource=\"pods\"} 6",
            "apiserver_storage_list_returned_objects_total{group=\"\",resource=\"pods\"} 5",
            "apiserver_watch_cache_consistent_read_total{fallback=\"false\",group=\"\",resource=\"pods\",success=\"true\"} 1",
            "apiserver_watch_cache_read_wait_seconds_bucket{group=\"\",resource=\"pods\",le=\"0.025\"} 1",
            "apiserver_watch_cache_read_wait_seconds_count{group=\"\",resource=\"pods\"} 2",
            "apiserver_watch_list_duration_seconds_bucket{group=\"\",resource=\"pods\",scope=\"cluster\",version=\"v1\",le=\"0.1\"} 1",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
    }
}
