//! Medians, percentiles, fairness.

use std::time::Duration;

/// The middle value, or the lower of the two in the middle.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    percentile_of(values, 0.5)
}

/// The smallest value that at least this share of the values does not exceed; NaN without values.
#[must_use]
pub fn percentile_of(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an index within the list
    let index = ((share * sorted.len() as f64).ceil() as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// The percentile of durations, in microseconds.
#[must_use]
pub fn micros(durations: &[Duration], share: f64) -> f64 {
    let values: Vec<f64> = durations.iter().map(|duration| duration.as_secs_f64() * 1e6).collect();
    percentile_of(&values, share)
}

/// What is told of a figure that was measured more than once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these values; `None` without any.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        (!values.is_empty()).then(|| Self {
            min: percentile_of(values, 0.0),
            median: median(values),
            max: percentile_of(values, 1.0),
        })
    }
}

/// Jain's fairness index: 1 if all have the same, 1/n if one has everything; NaN if nobody has anything.
#[must_use]
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_list() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(median(&values), 3.0);
        assert_eq!(percentile_of(&values, 0.99), 5.0);
        assert_eq!(percentile_of(&values, 0.0), 1.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_rank_is_the_smallest_that_covers_its_share() {
        let values: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        for (share, value) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            assert_eq!(percentile_of(&values, share), value);
        }
    }

    #[test]
    fn a_spread_has_the_ends_and_the_middle() {
        let spread = Spread::of(&[3.0, 9.0, 1.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 3.0, 9.0));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn fairness_is_between_equal_shares_and_one_taker() {
        assert_eq!(jain(&[2.0; 7]), 1.0);
        assert_eq!(jain(&[1.0, 0.0, 0.0, 0.0]), 0.25);
        assert!((jain(&[1.0, 2.0, 3.0]) - 36.0 / 42.0).abs() < 1e-12);
        assert!(jain(&[0.0, 0.0]).is_nan());
    }
}
