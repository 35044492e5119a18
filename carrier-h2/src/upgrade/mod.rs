//! How a connection begins: an upgrade of HTTP/1.1, with claim and welcome in header fields (`docs/wire.md` §12.1).

mod offer;
mod request;

pub(crate) use self::{offer::Offer, request::Ask};
