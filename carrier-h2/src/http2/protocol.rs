//! What a protocol on HTTP/2 does in its own way.

use std::{fmt, ops::ControlFlow, sync::Arc, task::Context};

use http::response;
use tokio::time::Instant;
use tunnel_core::{CloseCode, ConnectionError, Refusal, StreamCode, StreamHead, Text};

use super::{Driver, Incoming, stream::Outcome, stream::Stream};

/// How streams are asked for and answered, and what is said of a connection and of halves of streams. A driver has one,
/// and calls it with itself.
pub(crate) trait Protocol: fmt::Debug + Send + Sized + 'static {
    /// Before everything else.
    fn begin(driver: &mut Driver<Self>, cx: &mut Context<'_>);

    /// A request has come.
    fn arrive(driver: &mut Driver<Self>, incoming: Incoming);

    /// Takes what the peer says of the connection. Says whether it said anything.
    fn listen(driver: &mut Driver<Self>, cx: &mut Context<'_>, now: Instant) -> bool;

    /// Opens a stream, or has it wait.
    fn open(driver: &mut Driver<Self>, stream: &Arc<Stream>, head: Box<StreamHead>, cx: &mut Context<'_>, now: Instant);

    /// Accepts a stream, or has it wait.
    fn accept(driver: &mut Driver<Self>, stream: &Arc<Stream>, cx: &mut Context<'_>);

    /// Refuses a stream.
    fn refuse(driver: &mut Driver<Self>, stream: &Stream, refusal: &Refusal);

    /// The response to the request of a stream has come.
    fn answered(driver: &mut Driver<Self>, key: u64, response: &response::Parts, now: Instant);

    /// What it means for the opening of a stream that the peer ends it with this code, if that waits.
    fn unanswered(driver: &mut Driver<Self>, key: u64, code: StreamCode) -> Outcome;

    /// Tells the peer how halves have ended, and forgets a stream that is over.
    fn conclude(driver: &mut Driver<Self>, key: u64);

    /// Says what has to come behind everything that went before, all of which the socket has taken. Says whether it did.
    fn settle(driver: &mut Driver<Self>, cx: &mut Context<'_>) -> bool;

    /// Gives HTTP/2 what waits to be said of the connection. Says whether there was any.
    fn feed(driver: &mut Driver<Self>, cx: &mut Context<'_>) -> bool;

    /// How the peer has closed the connection, if it has said so.
    fn closed_by_peer(driver: &mut Driver<Self>) -> Option<ConnectionError>;

    /// Begins the end that this side wants.
    fn close(driver: &mut Driver<Self>, cx: &mut Context<'_>, code: CloseCode, text: Text);

    /// Goes on with it: `Break` when nothing more is to come, else whether anything happened.
    fn leave(driver: &mut Driver<Self>, cx: &mut Context<'_>) -> ControlFlow<(), bool>;

    /// Why HTTP/2 has ended.
    fn ended(driver: &mut Driver<Self>, ended: Result<(), h2::Error>) -> ConnectionError;

    /// When to look at the clock.
    fn next_look(&self) -> Option<Instant>;
}
