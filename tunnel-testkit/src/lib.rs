//! The memory carrier and the conformance laws that every carrier must pass
