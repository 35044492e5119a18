//! Claim and welcome, on the first stream of a connection (`docs/wire.md` §5).

use std::{any::Any, time::Duration};

use quinn::{ConnectionError, ReadError, WriteError};
use rustls::pki_types::CertificateDer;
use tunnel_core::{
    CloseCode, Identity, Rejection, Text, Welcome,
    proto::{Claim, FrameKind, Message},
};
use tunnel_tls::IdentityError;

use crate::{
    congestion,
    control::Control,
    error::quic_close_code,
    preamble::{MessageError, Messages},
};

/// How long a server waits for the agent to read a rejection and to close the connection.
const REJECTION_LINGER: Duration = Duration::from_secs(1);

/// Why two ends did not agree.
#[derive(Debug)]
pub(crate) enum Disagreement {
    /// The server does not accept the claim.
    Rejected(Rejection),
    /// The peer broke the protocol.
    Protocol(String),
    /// The connection ended.
    Lost(ConnectionError),
}

/// The agent's part: sends the claim and waits for the welcome.
///
/// # Cancel safety
///
/// Dropping the future leaves the connection to its other handles.
pub(crate) async fn introduce(quic: &quinn::Connection, claim: &Claim) -> Result<(Welcome, Control), Disagreement> {
    let (mut tx, mut rx) = quic.open_bi().await.map_err(Disagreement::Lost)?;
    let mut messages = Messages::expecting(&[FrameKind::Welcome, FrameKind::Rejection]);
    match tx.write_chunk(claim.encode()).await {
        // A server that rejects at once may stop the claim; its answer says more.
        Ok(()) | Err(WriteError::Stopped(_)) => {}
        Err(WriteError::ConnectionLost(error)) => return Err(Disagreement::Lost(error)),
        Err(error) => return Err(Disagreement::Protocol(error.to_string())),
    }
    match messages.next(&mut rx).await {
        Ok(Message::Welcome(welcome)) => Ok((welcome, Control { tx, rx, messages })),
        Ok(Message::Rejection(rejection)) => {
            close(quic, CloseCode::DONE, &Text::default());
            Err(Disagreement::Rejected(rejection))
        }
        Ok(other) => Err(Disagreement::Protocol(format!("a {} frame came unasked", other.kind()))),
        Err(error) => Err(disagreement(quic, error)),
    }
}

/// The server's part up to the claim.
///
/// # Cancel safety
///
/// As [`introduce`].
pub(crate) async fn read_claim(quic: &quinn::Connection) -> Result<(Claim, Control), Disagreement> {
    let (tx, mut rx) = quic.accept_bi().await.map_err(Disagreement::Lost)?;
    let mut messages = Messages::expecting(&[FrameKind::Claim]);
    match messages.next(&mut rx).await {
        Ok(Message::Claim(claim)) => Ok((claim, Control { tx, rx, messages })),
        Ok(other) => Err(Disagreement::Protocol(format!("a {} frame came unasked", other.kind()))),
        Err(error) => {
            if let MessageError::Frame(error) = &error
                && error.close_code() == CloseCode::VERSION
            {
                let rejection = Rejection::new(CloseCode::VERSION, error.to_string());
                reject(quic, tx, &rejection).await;
                return Err(Disagreement::Rejected(rejection));
            }
            Err(disagreement(quic, error))
        }
    }
}

/// The server's part when it accepts the claim.
pub(crate) async fn welcome(control: &mut Control, welcome: &Welcome) -> Result<(), Disagreement> {
    let sent = control.tx.write_chunk(welcome.encode()).await;
    sent.map_err(|error| match error {
        WriteError::ConnectionLost(error) => Disagreement::Lost(error),
        error => Disagreement::Protocol(error.to_string()),
    })
}

/// The server's part when it does not: sends the rejection and closes the connection, after the agent has had the time
/// to read it.
pub(crate) async fn reject(quic: &quinn::Connection, mut tx: quinn::SendStream, rejection: &Rejection) {
    // If it cannot be sent, the close code still tells.
    if tx.write_chunk(rejection.encode()).await.is_ok() && tx.finish().is_ok() {
        let _ = tokio::time::timeout(REJECTION_LINGER, quic.closed()).await;
    }
    close(quic, rejection.code, &rejection.text);
}

/// What the peer's certificate proves; anonymous if it showed none.
pub(crate) fn identity(quic: &quinn::Connection) -> Result<Identity, IdentityError> {
    let chain = quic
        .peer_identity()
        .and_then(|chain: Box<dyn Any>| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    tunnel_tls::peer_identity(chain.as_ref().map_or(&[], |chain| chain.as_slice()))
}

/// Closes a connection that nobody else knows yet, unless it is over.
pub(crate) fn close(quic: &quinn::Connection, code: CloseCode, reason: &Text) {
    if quic.close_reason().is_none() {
        congestion::open(quic);
        quic.close(quic_close_code(code), reason.as_str().as_bytes());
    }
}

fn disagreement(quic: &quinn::Connection, error: MessageError<ReadError>) -> Disagreement {
    match error.violation() {
        Ok((code, reason)) => {
            close(quic, code, &reason.as_str().into());
            Disagreement::Protocol(reason)
        }
        Err(ReadError::ConnectionLost(error)) => Disagreement::Lost(error),
        Err(error) => {
            let reason = format!("the control stream: {error}");
            close(quic, CloseCode::PROTOCOL, &reason.as_str().into());
            Disagreement::Protocol(reason)
        }
    }
}
