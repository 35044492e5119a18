//! Claim and welcome as messages, for links that have no headers (`docs/wire.md` §9.2).

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;
use tunnel_proto::{Claim, FrameDecoder, FrameError, FrameKind, Message, Rejection, Welcome};

use super::link::{Link, LinkError};

/// How long a server waits for the agent to read a rejection and to end the link.
const REJECTION_LINGER: Duration = Duration::from_secs(1);

/// Why two ends of a link did not agree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// The server does not accept the claim.
    #[error("rejected: {0}")]
    Rejected(Rejection),
    /// The peer broke the protocol.
    #[error("the peer does not speak the tunnel protocol: {0}")]
    Protocol(String),
    /// The link failed.
    #[error("the link failed before the welcome")]
    Link(#[source] LinkError),
    /// The peer ended the link.
    #[error("the peer ended the link before the welcome")]
    Ended,
}

/// The agent's part: sends the claim and waits for the answer, each of which is a message of one frame.
///
/// There is no deadline: the caller has one.
///
/// # Cancel safety
///
/// When dropped early the link is of no use any more.
pub async fn introduce(link: &mut dyn Link, claim: &Claim) -> Result<Welcome, HandshakeFailure> {
    let sent = send(link, claim.encode()).await;
    // A server that rejects at once may not take the claim; its answer says more.
    match receive(link, &[FrameKind::Welcome, FrameKind::Rejection]).await {
        Ok(Message::Welcome(welcome)) => sent.map(|()| welcome),
        Ok(Message::Rejection(rejection)) => {
            // The server waits for it. If it fails there is nobody left to tell.
            let _ = poll_fn(|cx| link.poll_close(cx)).await;
            Err(HandshakeFailure::Rejected(rejection))
        }
        Ok(other) => Err(unasked(&other)),
        Err(error @ HandshakeFailure::Protocol(_)) => Err(error),
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}

/// The server's part up to the claim. An agent that speaks no version in common is rejected here.
///
/// # Cancel safety
///
/// As [`introduce`].
pub async fn read_claim(link: &mut dyn Link) -> Result<Claim, HandshakeFailure> {
    let message = next(link).await?;
    match decode(message, &[FrameKind::Claim]) {
        Ok(Message::Claim(claim)) => Ok(claim),
        Ok(other) => Err(unasked(&other)),
        Err(Violation::Frame(error @ FrameError::Version { .. })) => {
            let rejection = Rejection::new(error.close_code(), error.to_string());
            reject(link, &rejection).await;
            Err(HandshakeFailure::Rejected(rejection))
        }
        Err(violation) => Err(violation.into()),
    }
}

/// The server's part when it accepts the claim; [`start`](super::start) comes next.
///
/// # Cancel safety
///
/// As [`introduce`].
pub async fn welcome(link: &mut dyn Link, welcome: &Welcome) -> Result<(), HandshakeFailure> {
    send(link, welcome.encode()).await
}

/// The server's part when it does not: sends the rejection and ends the link, after the agent has had the time to read
/// it, which is at most a second.
///
/// # Cancel safety
///
/// When dropped early the agent may see no rejection but the end of the link.
pub async fn reject(link: &mut dyn Link, rejection: &Rejection) {
    let told = async {
        send(link, rejection.encode()).await?;
        poll_fn(|cx| link.poll_close(cx))
            .await
            .map_err(HandshakeFailure::Link)?;
        while next(link).await.is_ok() {}
        Ok::<_, HandshakeFailure>(())
    };
    // Whatever fails, the rejection stands.
    let _ = timeout(REJECTION_LINGER, told).await;
}

async fn send(link: &mut dyn Link, frame: Bytes) -> Result<(), HandshakeFailure> {
    let sent = async {
        poll_fn(|cx| link.poll_ready(cx)).await?;
        link.send(frame.into())?;
        poll_fn(|cx| link.poll_flush(cx)).await
    };
    sent.await.map_err(HandshakeFailure::Link)
}

async fn receive(link: &mut dyn Link, kinds: &'static [FrameKind]) -> Result<Message, HandshakeFailure> {
    let message = next(link).await?;
    decode(message, kinds).map_err(HandshakeFailure::from)
}

async fn next(link: &mut dyn Link) -> Result<Bytes, HandshakeFailure> {
    let message = poll_fn(|cx| link.poll_recv(cx)).await;
    message.map_err(HandshakeFailure::Link)?.ok_or(HandshakeFailure::Ended)
}

/// What is wrong with a message.
#[derive(Debug)]
enum Violation {
    Frame(FrameError),
    /// There is no frame that is known, or more than one.
    Frames,
}

impl From<Violation> for HandshakeFailure {
    fn from(violation: Violation) -> Self {
        Self::Protocol(match violation {
            Violation::Frame(error) => error.to_string(),
            Violation::Frames => "the first message is not exactly one frame".to_owned(),
        })
    }
}

/// Reads a message that holds one frame of these kinds, and nothing else but frames of kinds unknown to this version.
fn decode(message: Bytes, kinds: &'static [FrameKind]) -> Result<Message, Violation> {
    let mut decoder = FrameDecoder::expecting(kinds);
    decoder.push(message);
    let first = decoder.next().map_err(Violation::Frame)?;
    let second = decoder.next().map_err(Violation::Frame)?;
    decoder.finish().map_err(Violation::Frame)?;
    match (first, second) {
        (Some(message), None) => Ok(message),
        _ => Err(Violation::Frames),
    }
}

fn unasked(message: &Message) -> HandshakeFailure {
    HandshakeFailure::Protocol(format!("a {} frame came unasked", message.kind()))
}
