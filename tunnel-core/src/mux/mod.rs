//! Carries streams over a link: the driver of [`tunnel_proto::mux`].

mod link;

pub use self::link::{Link, LinkError};
