//! The mux holds to every law, whatever its link is like.

use std::time::Duration;

use tunnel_testkit::sim::{LinkHarness, Profile};

mod instant {
    use super::*;
    tunnel_testkit::conformance!(LinkHarness::new(Profile::default()));
}

/// 1 Gbit/s around the world.
mod far {
    use super::*;
    tunnel_testkit::conformance!(LinkHarness::new(Profile::new(Duration::from_millis(100), 125_000_000)));
}

/// Everything comes late, and in small pieces.
mod slow_flush {
    use super::*;
    tunnel_testkit::conformance!(LinkHarness::new(Profile {
        flush_delay: Some(Duration::from_millis(20)),
        jitter: Duration::from_millis(3),
        max_write: Some(5000),
        max_read: Some(999),
        ..Profile::new(Duration::from_millis(5), 20_000_000)
    }));
}
