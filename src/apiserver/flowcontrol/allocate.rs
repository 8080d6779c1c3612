//! How the server's seats are divided among the levels: nominally by their shares, and from time to time anew by what
//! each could use (upstream: `conc_alloc.go`, KEP-1040 "dispatching adjustments").

/// One level's part in the division. `lower <= target`, `lower <= upper`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    pub target: f64,
    pub lower: f64,
    pub upper: f64,
}

/// A target of nothing would never get anything of what is over.
const TARGET_MIN: f64 = 0.001;
const EPSILON: f64 = 1e-7;
/// Halvings of the interval in which the common factor lies.
const ROUNDS: usize = 100;

/// What each claim gets: `factor * target` within its bounds, with the one factor that makes the sum `total`. Claims
/// whose bounds cannot sum to `total` get the bound on that side.
pub fn divide(total: f64, claims: &[Claim]) -> (Vec<f64>, f64) {
    let target = |claim: &Claim| claim.target.max(TARGET_MIN);
    let given =
        |factor: f64| claims.iter().map(move |claim| (factor * target(claim)).min(claim.upper).max(claim.lower));
    // From here on every claim has its upper bound.
    let mut high = claims.iter().map(|claim| claim.upper / target(claim)).fold(0.0, f64::max);
    let mut low = 0.0;
    for _ in 0..ROUNDS {
        let middle = f64::midpoint(low, high);
        let sum: f64 = given(middle).sum();
        if (sum - total).abs() < EPSILON {
            (low, high) = (middle, middle);
            break;
        }
        if sum < total { low = middle } else { high = middle }
    }
    let factor = f64::midpoint(low, high);
    (given(factor).collect(), factor)
}

/// What a level is configured with and what was seen of it since the last adjustment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    pub exempt: bool,
    pub nominal: u64,
    pub min: u64,
    pub max: u64,
    /// Most seats that were in use or waited for at one time.
    pub high_watermark: u64,
    pub smoothed: f64,
}

/// One level's limits after an adjustment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjusted {
    pub current: u64,
    pub target: f64,
}

/// The current limit of each level, and the fair fraction.
pub fn adjust(levels: &[Demand]) -> (Vec<Adjusted>, f64) {
    let floor = |level: &Demand| {
        if level.exempt {
            level.min.max(level.high_watermark)
        } else {
            level.min.max(level.nominal.min(level.high_watermark))
        }
    };
    let sum = |of: &dyn Fn(&Demand) -> u64, exempt: bool| -> u64 {
        levels.iter().filter(|level| level.exempt == exempt).map(of).sum()
    };
    let total: u64 = levels.iter().map(|level| level.nominal).sum();
    let remaining = total.saturating_sub(sum(&floor, true));
    let (min_sum, floor_sum) = (sum(&|level| level.min, false), sum(&floor, false));
    let target = |level: &Demand| (floor(level) as f64).max(level.smoothed);
    let whole = |level: &Demand, current: u64| Adjusted { current, target: target(level) };
    if remaining <= min_sum {
        let current = |level: &Demand| if level.exempt { floor(level) } else { level.min };
        return (levels.iter().map(|level| whole(level, current(level))).collect(), 0.0);
    }
    if remaining <= floor_sum {
        let fraction = (remaining - min_sum) as f64 / (floor_sum - min_sum).max(1) as f64;
        let current = |level: &Demand| match level.exempt {
            true => floor(level),
            false => level.min + ((floor(level) - level.min) as f64 * fraction).round() as u64,
        };
        return (levels.iter().map(|level| whole(level, current(level))).collect(), 0.0);
    }
    let claims: Vec<Claim> = levels
        .iter()
        .filter(|level| !level.exempt)
        .map(|level| Claim { target: target(level), lower: floor(level) as f64, upper: level.max as f64 })
        .collect();
    let (given, factor) = divide(remaining as f64, &claims);
    let mut given = given.into_iter();
    let current = |level: &Demand| {
        if level.exempt { floor(level) } else { given.next().unwrap_or_default().round() as u64 }
    };
    let current: Vec<u64> = levels.iter().map(current).collect();
    (levels.iter().zip(current).map(|(level, current)| whole(level, current)).collect(), factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_whole_is_divided_within_bounds(
            claims in prop::collection::vec((0f64..50.0, 0f64..50.0, 0f64..100.0), 1..8),
            part in 0f64..1.0,
        ) {
            let claims: Vec<Claim> = claims
                .into_iter()
                .map(|(lower, more, wide)| Claim { lower, target: lower + more, upper: lower + wide })
                .collect();
            let (low, high) = claims.iter().fold((0.0, 0.0), |(low, high), one| (low + one.lower, high + one.upper));
            let total = low + part * (high - low);
            let (given, factor) = divide(total, &claims);
            prop_assert!((given.iter().sum::<f64>() - total).abs() < 1e-3, "{given:?} of {total}");
            for (claim, given) in claims.iter().zip(given) {
                prop_assert!(given >= claim.lower - 1e-6 && given <= claim.upper + 1e-6);
                let free = given > claim.lower + 1e-3 && given < claim.upper - 1e-3;
                prop_assert!(!free || (given - factor * claim.target.max(TARGET_MIN)).abs() < 1e-3);
            }
        }
    }

    fn level(nominal: u64, lendable: u64, high_watermark: u64) -> Demand {
        Demand {
            exempt: false,
            nominal,
            min: nominal - lendable,
            max: nominal + 600,
            high_watermark,
            smoothed: high_watermark as f64,
        }
    }

    #[test]
    fn a_busy_level_borrows_what_idle_ones_lend() {
        let (after, _) = adjust(&[level(100, 50, 500), level(100, 90, 0), level(50, 0, 0)]);
        let current: Vec<u64> = after.iter().map(|one| one.current).collect();
        assert_eq!(current, [190, 10, 50], "the idle levels keep what they do not lend");
    }

    #[test]
    fn exempt_requests_take_from_everybody() {
        let exempt = Demand { exempt: true, high_watermark: 150, max: 600, ..Demand::default() };
        let (after, _) = adjust(&[exempt, level(100, 50, 100), level(100, 100, 100)]);
        let current: Vec<u64> = after.iter().map(|one| one.current).collect();
        assert_eq!(current, [150, 50, 0]);
    }
}
