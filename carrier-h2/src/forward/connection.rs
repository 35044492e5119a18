//! How connections begin.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tunnel_core::{
    Connection, ConnectionError, DialError, HandshakeError, HostPort, Peer, Rejection, proto::mux::Account,
};
use tunnel_tcp::{BoxIo, expect_http2, farewell, http2::Role};

use super::{CAPABILITIES, ForwardConfig, protocol::Forward};
use crate::{
    config::Tuning,
    http2::{Driver, GoAway, H2Connection, Hub, Knobs, Pipe, Session, Sight, close_code, close_reason},
};

/// Serves the streams of a peer that has connected.
///
/// # Cancel safety
///
/// Dropping the future closes the pipe.
pub(super) async fn serve(
    io: BoxIo,
    peer: Peer,
    config: &ForwardConfig,
) -> Result<Arc<dyn Connection>, HandshakeError> {
    let (begin, io) = expect_http2(io, "this port serves CONNECT of HTTP/2, and nothing else").await?;
    let pipe = Pipe::listening(io, begin.freeze(), Role::Server, &config.tuning.mux.budget);
    let (sight, account) = (pipe.sight(), pipe.account());
    let knobs = Knobs {
        // Only so that such a request can be answered: without it, h2 resets it.
        extended_connect: true,
        ..config.tuning.knobs(config.limits().max_streams)
    };
    let session = Session::server(pipe, knobs).await.map_err(|error| {
        if error.is_io() {
            return HandshakeError::Lost(ConnectionError::transport(error));
        }
        HandshakeError::Protocol {
            detail: format!("it breaks HTTP/2: {error}"),
        }
    })?;
    Ok(start(
        Forward::serving(config),
        session,
        (sight, account),
        peer,
        &config.tuning,
    ))
}

/// Tells a peer that is not let in why, and closes the pipe when it has read that, after a second at most.
///
/// # Cancel safety
///
/// Dropping the future closes the pipe.
pub(super) async fn turn_away(io: BoxIo, rejection: &Rejection) {
    let goaway = GoAway {
        reason: close_reason(rejection.code),
        words: rejection.text.clone(),
    };
    farewell(io, &goaway.at_once()).await;
}

/// Opens streams at a proxy, whose SETTINGS it waits for.
///
/// # Cancel safety
///
/// Dropping the future closes the pipe.
pub(super) async fn open(
    io: BoxIo,
    peer: Peer,
    proxy: &HostPort,
    config: &ForwardConfig,
) -> Result<Arc<dyn Connection>, NotOpened> {
    let pipe = Pipe::listening(io, Bytes::new(), Role::Client, &config.tuning.mux.budget);
    let (sight, account) = (pipe.sight(), pipe.account());
    let opened = async {
        let mut session = Session::client(pipe, config.tuning.knobs(0)).await?;
        poll_fn(|cx| poll_settings(&mut session, &sight, cx)).await?;
        Ok(session)
    };
    // With TLS 1.3 a server looks at this side's certificate when its own part of the handshake is over.
    let session = opened
        .await
        .map_err(|error| sight.tls().map_or(error, NotOpened::Tls))?;
    let forward = Forward::opening(proxy, config);
    Ok(start(forward, session, (sight, account), peer, &config.tuning))
}

fn poll_settings(session: &mut Session, sight: &Sight, cx: &mut Context<'_>) -> Poll<Result<(), NotOpened>> {
    let ended = session.poll(cx, &mut Vec::new());
    if let Some(goaway) = sight.heard.goaway() {
        return Poll::Ready(Err(NotOpened::GoAway(goaway)));
    }
    match ended {
        Poll::Ready(Ok(())) => Poll::Ready(Err(NotOpened::Ended)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
        Poll::Pending if sight.heard.settings() => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    }
}

fn start(
    forward: Forward,
    session: Session,
    (sight, account): (Arc<Sight>, Arc<Account>),
    peer: Peer,
    tuning: &Tuning,
) -> Arc<dyn Connection> {
    let proto = &tuning.mux.proto;
    // Places for streams that this end opens are those of the peer's SETTINGS.
    let hub = Hub::new(account, proto.send_queue(), 0, proto.limits().max_streams);
    tokio::spawn(Driver::new(forward, Arc::clone(&hub), session, sight, tuning).run());
    Arc::new(H2Connection {
        hub,
        peer,
        capabilities: CAPABILITIES,
    })
}

/// Why there is no connection with a proxy.
#[derive(Debug)]
pub(super) enum NotOpened {
    Http2(h2::Error),
    /// The proxy went away at once.
    GoAway(GoAway),
    /// The pipe ended.
    Ended,
    /// The proxy did not accept this side by TLS; why, as a clause for people.
    Tls(String),
}

impl From<h2::Error> for NotOpened {
    fn from(error: h2::Error) -> Self {
        Self::Http2(error)
    }
}

impl NotOpened {
    /// It with `remote`.
    pub(super) fn into_dial_error(self, remote: String, is_tls: bool) -> DialError {
        let lost = |remote, source| DialError::Lost { remote, source };
        match self {
            Self::Ended => {
                let words = "it was closed before HTTP/2 began; does the other end let this side in?";
                let ended = io::Error::new(io::ErrorKind::UnexpectedEof, words);
                lost(remote, ConnectionError::transport(ended))
            }
            Self::Tls(explanation) => DialError::Tls {
                remote,
                explanation,
                source: Arc::new(io::Error::from(io::ErrorKind::ConnectionAborted)),
            },
            Self::GoAway(GoAway { reason, words }) => {
                let words = if words.is_empty() {
                    reason.description().into()
                } else {
                    words
                };
                lost(remote, ConnectionError::remote(close_code(Some(reason)), words))
            }
            Self::Http2(error) if ends_early(&error) => Self::Ended.into_dial_error(remote, is_tls),
            Self::Http2(error) => {
                if !error.is_io() {
                    let hint = if is_tls {
                        "is it HTTP/1.1?"
                    } else {
                        "is it HTTP/1.1, or does it expect TLS?"
                    };
                    let detail = format!("its answer is not HTTP/2 ({error}): {hint}");
                    return DialError::Protocol { remote, detail };
                }
                lost(remote, ConnectionError::transport(error))
            }
        }
    }
}

/// Whether the pipe just ended.
fn ends_early(error: &h2::Error) -> bool {
    let io = error.get_io();
    io.is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof)
}
