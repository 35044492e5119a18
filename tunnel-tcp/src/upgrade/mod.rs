//! An upgrade of HTTP/1.1 to the tunnel, whatever is spoken behind it: the exchange itself at both ends ([`ask`],
//! [`serve`]), the claim, the welcome and the rejection in header fields (`docs/wire.md` §10.2, §10.3), how a server says
//! no, and what it means when something else answers.

mod ask;
mod claim;
mod explain;
mod fields;
mod recover;
mod refuse;
mod serve;

pub use self::{
    ask::ask,
    claim::{ClaimFields, claim, welcome, welcome_field},
    explain::{Asked, response},
    fields::{FieldError, decode, encode, has_token, items},
    recover::recover,
    refuse::{Refused, rejected, sentence, stranger},
    serve::serve,
};
