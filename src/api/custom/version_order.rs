//! The order of versions (`version.CompareKubeAwareVersionStrings`).

use std::cmp::Reverse;

/// The greater, the more preferred: `v2`, `v1`, `v11beta2`, `v3beta1`, `v12alpha1`, and then others by name.
pub fn priority(version: &str) -> (u8, u64, u64, Reverse<String>) {
    match parsed(version) {
        Some((rank, major, minor)) => (rank, major, minor, Reverse(String::new())),
        None => (0, 0, 0, Reverse(version.to_owned())),
    }
}

fn parsed(version: &str) -> Option<(u8, u64, u64)> {
    let number = |text: &str| {
        let good = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        good.then(|| text.parse::<u64>().ok()).flatten()
    };
    let rest = version.strip_prefix('v')?;
    for (word, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((rank, number(major)?, number(minor)?));
        }
    }
    Some((3, number(rest)?, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_goes_before_beta_before_alpha_before_the_rest() {
        let order = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        let mut sorted = order;
        sorted.reverse();
        sorted.sort_by_key(|version| Reverse(priority(version)));
        assert_eq!(sorted, order);
    }
}
