//! Medians, percentiles and how they are printed.

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
}
