//! The memory carrier holds to every law, whether bytes take time or not.

use tunnel_testkit::memory::MemoryHarness;

mod instant {
    use super::*;
    tunnel_testkit::conformance!(MemoryHarness::instant());
}

mod slow {
    use super::*;
    tunnel_testkit::conformance!(MemoryHarness::slow());
}
