//! The next sizes of a Deployment's ReplicaSets. Pure.
//!
//! A rolling update never has more than `replicas + maxSurge` pods and never fewer than `replicas - maxUnavailable`
//! available ones, as far as it is up to us.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A ReplicaSet as far as its size goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    pub name: String,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `status.availableReplicas`.
    pub available: i32,
    /// The most pods the Deployment could have when this set was last sized.
    pub most: Option<i32>,
}

/// A ReplicaSet and the `spec.replicas` that it should have. Sets that are not mentioned stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    pub name: String,
    pub replicas: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    Recreate,
    /// Numbers of pods, percentages resolved.
    Rolling {
        surge: i32,
        unavailable: i32,
    },
}

impl Strategy {
    /// Percentages of `wanted` are rounded up for the surge and down for the unavailable; if both come to nothing, one
    /// may be unavailable, or nothing would ever move.
    pub fn rolling(wanted: i32, surge: Option<&IntOrString>, unavailable: Option<&IntOrString>) -> Strategy {
        let quarter = IntOrString::String("25%".to_owned());
        let surge = resolve(surge.unwrap_or(&quarter), wanted, true);
        let unavailable = resolve(unavailable.unwrap_or(&quarter), wanted, false).min(wanted);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Strategy::Rolling { surge, unavailable }
    }

    /// The most pods that `wanted` replicas may have at a time.
    pub fn most(self, wanted: i32) -> i32 {
        match self {
            Strategy::Recreate => wanted,
            Strategy::Rolling { surge, .. } => wanted + surge,
        }
    }

    /// The fewest available pods that `wanted` replicas may have.
    pub fn fewest(self, wanted: i32) -> i32 {
        match self {
            Strategy::Recreate => wanted,
            Strategy::Rolling { unavailable, .. } => wanted - unavailable,
        }
    }
}

fn resolve(value: &IntOrString, wanted: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent.max(0) * i64::from(wanted);
            i32::try_from(if up { (product + 99) / 100 } else { product / 100 }).unwrap_or(i32::MAX)
        }
    }
}

fn total(sets: &[Size]) -> i32 {
    sets.iter().map(|set| set.replicas).sum()
}

/// The size of the new ReplicaSet, which has `replicas` now.
pub fn new_size(wanted: i32, strategy: Strategy, replicas: i32, old: &[Size]) -> i32 {
    if replicas >= wanted {
        return wanted;
    }
    let room = (strategy.most(wanted) - replicas - total(old)).max(0);
    replicas + room.min(wanted - replicas)
}

/// The next step of a rolling update.
pub fn roll(wanted: i32, strategy: Strategy, new: Option<&Size>, old: &[Size]) -> Vec<Resize> {
    let Some(new) = new else { return Vec::new() };
    let size = new_size(wanted, strategy, new.replicas, old);
    if size != new.replicas {
        return vec![Resize { name: new.name.clone(), replicas: size }];
    }
    let spare = new.replicas + total(old) - strategy.fewest(wanted) - (new.replicas - new.available).max(0);
    if spare <= 0 {
        return Vec::new();
    }
    let mut sizes = old.to_vec();
    // Those that are not available go first: taking them away costs nothing.
    let mut left = spare;
    for set in &mut sizes {
        let going = (set.replicas - set.available).clamp(0, left);
        set.replicas -= going;
        left -= going;
    }
    let available = new.available + old.iter().map(|set| set.available.min(set.replicas)).sum::<i32>();
    let mut left = left.min(available - strategy.fewest(wanted));
    for set in &mut sizes {
        let going = set.replicas.clamp(0, left.max(0));
        set.replicas -= going;
        left -= going;
    }
    changes(old, &sizes)
}

/// `Recreate`: nothing of the new one before everything of the old ones is gone.
pub fn recreate(wanted: i32, new: Option<&Size>, old: &[Size], old_pods_run: bool) -> Vec<Resize> {
    let empty: Vec<Size> = old.iter().map(|set| Size { replicas: 0, ..set.clone() }).collect();
    let resizes = changes(old, &empty);
    if !resizes.is_empty() || old_pods_run {
        return resizes;
    }
    new.filter(|new| new.replicas != wanted)
        .map(|new| Resize { name: new.name.clone(), replicas: wanted })
        .into_iter()
        .collect()
}

/// The number of replicas was changed, perhaps in the middle of a rollout: every set gets its share of the change.
pub fn scale(wanted: i32, strategy: Strategy, new: Option<&Size>, old: &[Size]) -> Vec<Resize> {
    let resize = |set: &Size, replicas: i32| Resize { name: set.name.clone(), replicas };
    let active: Vec<&Size> = old.iter().chain(new).filter(|set| set.replicas > 0).collect();
    match active.as_slice() {
        // The latest one, if all are empty.
        [] => return new.or(old.last()).map(|set| resize(set, wanted)).into_iter().collect(),
        [one] => return vec![resize(one, wanted)],
        _ => {}
    }
    if let Some(new) = new.filter(|new| new.replicas == wanted && new.available == wanted) {
        let empty: Vec<Size> = old.iter().map(|set| Size { replicas: 0, ..set.clone() }).collect();
        let mut resizes = changes(old, &empty);
        resizes.push(resize(new, wanted));
        return resizes;
    }
    if strategy == Strategy::Recreate {
        return Vec::new();
    }
    let before: i32 = active.iter().map(|set| set.replicas).sum();
    let most = if wanted > 0 { strategy.most(wanted) } else { 0 };
    let change = most - before;
    // The largest first, and of equal ones the newest when growing, the oldest when shrinking.
    let mut shares: Vec<(usize, &Size)> = active.into_iter().enumerate().collect();
    shares.sort_by_key(|(age, set)| (-set.replicas, if change > 0 { -(*age as i64) } else { *age as i64 }));
    let mut given = 0;
    let mut sized: Vec<(&Size, i32)> = Vec::new();
    for (_, set) in &shares {
        let of = i64::from(set.most.unwrap_or(before).max(1));
        let target = (2 * i64::from(set.replicas) * i64::from(most) + of) / (2 * of);
        let wish = i32::try_from(target - i64::from(set.replicas)).unwrap_or(0);
        let share = if change > 0 { wish.clamp(0, change - given) } else { wish.clamp(change - given, 0) };
        given += share;
        sized.push((set, set.replicas + share));
    }
    // What rounding left over is the largest one's.
    if let Some((_, replicas)) = sized.first_mut() {
        *replicas = (*replicas + change - given).max(0);
    }
    sized.into_iter().map(|(set, replicas)| resize(set, replicas)).collect()
}

fn changes(before: &[Size], after: &[Size]) -> Vec<Resize> {
    before
        .iter()
        .zip(after)
        .filter(|(before, after)| before.replicas != after.replicas)
        .map(|(_, after)| Resize { name: after.name.clone(), replicas: after.replicas })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(name: &str, replicas: i32, available: i32) -> Size {
        Size { name: name.to_owned(), replicas, available, most: None }
    }

    /// Plays a whole rollout, with every pod available at once, and writes down each step.
    fn story(wanted: i32, strategy: Strategy) -> Vec<String> {
        let (mut new, mut old) = (size("new", 0, 0), vec![size("old", wanted, wanted)]);
        let mut steps = Vec::new();
        for _ in 0..50 {
            let resizes = roll(wanted, strategy, Some(&new), &old);
            if resizes.is_empty() {
                break;
            }
            for resize in resizes {
                let set = if resize.name == "new" { &mut new } else { &mut old[0] };
                set.replicas = resize.replicas;
            }
            let pods = new.replicas + old[0].replicas;
            assert!(pods <= strategy.most(wanted), "never too many");
            new.available = new.replicas;
            old[0].available = old[0].replicas;
            assert!(new.available + old[0].available >= strategy.fewest(wanted), "never too few");
            steps.push(format!("old {} new {}", old[0].replicas, new.replicas));
        }
        steps
    }

    #[test]
    fn a_rollout_with_surge() {
        let strategy = Strategy::rolling(4, None, None);
        assert_eq!(strategy, Strategy::Rolling { surge: 1, unavailable: 1 });
        assert_eq!(story(4, strategy), ["old 4 new 1", "old 2 new 1", "old 2 new 3", "old 0 new 3", "old 0 new 4"]);
    }

    #[test]
    fn a_rollout_without_surge() {
        let strategy = Strategy::rolling(3, Some(&IntOrString::Int(0)), Some(&IntOrString::String("34%".to_owned())));
        assert_eq!(strategy, Strategy::Rolling { surge: 0, unavailable: 1 });
        assert_eq!(story(3, strategy).last().map(String::as_str), Some("old 0 new 3"));
    }

    #[test]
    fn something_always_moves() {
        let nothing = IntOrString::Int(0);
        assert_eq!(
            Strategy::rolling(3, Some(&nothing), Some(&nothing)),
            Strategy::Rolling { surge: 0, unavailable: 1 }
        );
    }

    #[test]
    fn pods_that_never_came_up_go_first() {
        let strategy = Strategy::Rolling { surge: 1, unavailable: 1 };
        let old = [size("broken", 2, 0), size("good", 2, 2)];
        let new = size("new", 1, 0);
        assert_eq!(roll(4, strategy, Some(&new), &old), [Resize { name: "broken".into(), replicas: 1 }]);
    }

    #[test]
    fn recreate_waits_for_the_old_pods() {
        let (new, old) = (size("new", 0, 0), [size("old", 2, 2)]);
        assert_eq!(recreate(2, Some(&new), &old, true), [Resize { name: "old".into(), replicas: 0 }]);
        let old = [size("old", 0, 0)];
        assert_eq!(recreate(2, Some(&new), &old, true), []);
        assert_eq!(recreate(2, Some(&new), &old, false), [Resize { name: "new".into(), replicas: 2 }]);
    }

    #[test]
    fn a_change_of_size_in_the_middle_of_a_rollout_is_shared() {
        let strategy = Strategy::Rolling { surge: 3, unavailable: 2 };
        let sized = |name: &str, replicas: i32| Size { most: Some(13), ..size(name, replicas, replicas) };
        let resizes = scale(15, strategy, Some(&sized("new", 5)), &[sized("old", 8)]);
        let total: i32 = resizes.iter().map(|resize| resize.replicas).sum();
        assert_eq!(total, 18);
        assert_eq!(resizes[0], Resize { name: "old".into(), replicas: 11 });
        let resizes = scale(0, strategy, Some(&sized("new", 5)), &[sized("old", 8)]);
        assert!(resizes.iter().all(|resize| resize.replicas == 0), "{resizes:?}");
        assert_eq!(scale(7, strategy, Some(&size("new", 3, 3)), &[]), [Resize { name: "new".into(), replicas: 7 }]);
    }
}
