//! TLS on top of a byte pipe, or none.

mod client;
mod protected;
mod refuse;
mod server;

#[cfg(test)]
mod tests;

use std::{error::Error as StdError, io};

use tunnel_core::error::SharedError;
use tunnel_tls::IdentityError;

pub use self::{
    client::{ClientSecurity, ClientSide},
    server::{ServerSecurity, ServerSide},
};

/// How much is read at a time from the pipe below TLS, where the TLS library alone would read 4 KiB: two messages of
/// 64 KiB with their headers, in records. A connection that has nothing to read does not hold this memory.
const READ_AHEAD: usize = 136 * 1024;

/// How many bytes of records the TLS library makes of one write, and holds while the pipe below takes none: more than the
/// longest message of a carrier with its headers. At the library's own 64 KiB, each message of 64 KiB left a few bytes
/// for a record, a segment and a wake-up of the peer of their own.
const WRITE_BUFFER: usize = 128 * 1024;

/// The protocol that is spoken where none was negotiated.
const WITHOUT_ALPN: &[u8] = b"http/1.1";

/// Says in one clause what went wrong with TLS, if that is what an error is about, wherever it is in the chain of
/// causes.
///
/// With TLS 1.3 a server looks at the client's certificate when the client's handshake is done already, so its
/// refusal is an error of a later read or write. Ask this function about those that come before the first byte of the
/// server.
#[must_use]
pub fn explain_tls(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() || error.is::<IdentityError>() {
            return Some(tunnel_tls::explain(error));
        }
        // `source` of an I/O error, and of a shared one, skips the error that it holds.
        next = if let Some(error) = error.downcast_ref::<io::Error>() {
            error.get_ref().map(|held| held as &(dyn StdError + 'static))
        } else if let Some(error) = error.downcast_ref::<SharedError>() {
            Some(&**error)
        } else {
            error.source()
        };
    }
    None
}

fn words(protocols: &[Vec<u8>]) -> String {
    let words: Vec<_> = protocols
        .iter()
        .map(|protocol| String::from_utf8_lossy(protocol))
        .collect();
    words.join(" or ")
}
