//! Where clients connect.

pub(crate) mod tcp;
pub(crate) mod unix;
