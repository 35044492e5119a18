//! What an upgrade of HTTP/1.1 to the tunnel is made of, whatever is spoken behind it: the claim, the welcome and the
//! rejection in header fields (`docs/wire.md` §10.2, §10.3), how a server says no, and what it means when something else
//! answers.

mod claim;
mod explain;
mod fields;
mod refuse;

pub use self::{
    claim::{ClaimFields, claim, welcome, welcome_field},
    explain::{Asked, response},
    fields::{FieldError, decode, encode, has_token, items},
    refuse::{rejected, sentence},
};
