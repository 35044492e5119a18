//! Where clients connect.

pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod unix;
