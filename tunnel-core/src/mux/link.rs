//! What is below a mux.

use std::{
    fmt, io,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tunnel_proto::mux::Message;

/// An ordered pipe of messages: a WebSocket, a gRPC call.
///
/// Back-pressure is by pull only: a link that has no room is not given messages, and one whose messages are not taken
/// stops reading from its peer.
pub trait Link: fmt::Debug + Send {
    /// Ready when another message can be taken; pending while what was taken before waits for the wire. A link should
    /// hold little: what it has taken can no longer be overtaken by something more urgent.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>>;

    /// Takes a message, after [`poll_ready`](Self::poll_ready) was ready.
    fn send(&mut self, message: Message) -> Result<(), LinkError>;

    /// Puts what was taken on the wire.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>>;

    /// The next message, or `None` when the peer has ended the link in order. Parts of it may be kept as slices until a
    /// reader takes them, so what it keeps in memory should be little more than it is long.
    ///
    /// # Cancel safety
    ///
    /// No message is lost when the caller goes away while it is pending.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>>;

    /// Ends the link in order, behind everything taken.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>>;

    /// Cancelled, if ever, when something on the way has announced that it will end the link, such as a proxy that is
    /// replaced. The link carries streams until then, new ones as well, so its peer is not told: the connection is
    /// [said to drain](crate::Connection::draining), for its owner to make another one in time. Asked for once, when the
    /// connection begins. By default nothing is ever announced.
    fn ending(&self) -> CancellationToken {
        CancellationToken::new()
    }
}

/// Why a link failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The transport below failed.
    #[error("the transport of the link failed")]
    Io(#[source] io::Error),
    /// The peer broke the protocol of the link, for example RFC 6455 for a WebSocket.
    #[error("the peer broke the protocol of the link: {0}")]
    Protocol(String),
    /// The peer, or something on the way, ended the link with a status of its own instead of closing the connection.
    #[error("the link was ended from outside: {0}")]
    Ended(String),
}
