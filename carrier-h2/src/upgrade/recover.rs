//! From hyper's connection back to the byte pipe below.

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tunnel_tcp::BoxIo;

use crate::http2::Pipe;

/// The pipe, with what hyper has read beyond the upgrade.
pub(crate) fn recover(upgraded: Upgraded) -> Pipe {
    match upgraded.downcast::<TokioIo<BoxIo>>() {
        Ok(parts) => Pipe::new(parts.io.into_inner(), parts.read_buf),
        // It is what was given to hyper; but if it were not, this would work all the same.
        Err(upgraded) => Pipe::new(Box::new(TokioIo::new(upgraded)), Bytes::new()),
    }
}
