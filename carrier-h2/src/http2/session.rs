//! One HTTP/2 connection, in either of its roles.

use std::{
    fmt,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{PingPong, RecvStream, SendStream, client, server};
use http::Request;

use super::Pipe;

/// The longest frame that is taken. Larger ones gain nothing and make others wait.
const MAX_FRAME: u32 = 64 * 1024;
/// The most bytes of headers: the longest head in base64, and room for what others may add.
const MAX_HEADERS: u32 = 64 * 1024;
/// How many bytes of one stream h2 takes at most: two turns of one that is alone.
const SEND_BUFFER: usize = 128 * 1024;
/// How many streams may be given up before they were looked at. They are looked at each time the socket was read, so
/// this is what may come in one piece.
const UNSEEN_RESETS: usize = 1024;
/// What frames of less than 256 bytes may lack of that, together and before they were looked at, which happens as
/// above.
const SMALL_FRAMES: usize = 64 * 1024 * 1024;

/// What can be set of a HTTP/2 connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knobs {
    /// How many bytes of a stream the peer may send before they were taken.
    pub(crate) stream_window: u32,
    /// The same for all streams.
    pub(crate) connection_window: u32,
    /// How many streams a client may have open; for the client: until the server has said so.
    pub(crate) max_streams: u32,
    /// Whether a client may ask for extended CONNECT (RFC 8441).
    pub(crate) extended_connect: bool,
}

/// A HTTP/2 connection. It does nothing unless it is polled.
pub(crate) struct Session {
    role: Role,
    /// Has the session polled: woken for changes here of which h2 does not say that they need it.
    due: Waker,
}

enum Role {
    Client {
        connection: client::Connection<Pipe, Bytes>,
        /// Until no more are to be made.
        requests: Option<client::SendRequest<Bytes>>,
    },
    Server(server::Connection<Pipe, Bytes>),
}

/// A request, and what answers it.
pub(crate) type Incoming = (Request<RecvStream>, server::SendResponse<Bytes>);

/// A request that was sent: its response, and what it sends.
pub(crate) type Sent = (client::ResponseFuture, SendStream<Bytes>);

impl Session {
    /// Begins as a client (RFC 9113 §3.4). It ends when the preface is written.
    pub(crate) async fn client(pipe: Pipe, knobs: Knobs) -> Result<Self, h2::Error> {
        let mut builder = client::Builder::new();
        builder
            .initial_window_size(knobs.stream_window)
            .initial_connection_window_size(knobs.connection_window)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADERS)
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(SMALL_FRAMES)
            // Until the server has said how many it takes.
            .initial_max_send_streams(knobs.max_streams as usize)
            .max_concurrent_streams(0)
            .enable_push(false)
            .max_local_error_reset_streams(None);
        let (requests, connection) = builder.handshake(pipe).await?;
        Ok(Self::new(Role::Client {
            connection,
            requests: Some(requests),
        }))
    }

    /// Begins as a server. It ends when the client's preface has come.
    pub(crate) async fn server(pipe: Pipe, knobs: Knobs) -> Result<Self, h2::Error> {
        let mut builder = server::Builder::new();
        builder
            .initial_window_size(knobs.stream_window)
            .initial_connection_window_size(knobs.connection_window)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADERS)
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(SMALL_FRAMES)
            .max_concurrent_streams(knobs.max_streams)
            .max_pending_accept_reset_streams(UNSEEN_RESETS)
            // It counts for as long as the connection lives, and a frame that comes late for a stream that was reset
            // counts: a connection of many streams would die of old age. What it guards against, work that goes on for
            // streams that are reset, is bounded above.
            .max_local_error_reset_streams(None);
        if knobs.extended_connect {
            builder.enable_connect_protocol();
        }
        Ok(Self::new(Role::Server(builder.handshake(pipe).await?)))
    }

    fn new(role: Role) -> Self {
        Self {
            role,
            due: Waker::noop().clone(),
        }
    }

    pub(crate) fn is_client(&self) -> bool {
        matches!(self.role, Role::Client { .. })
    }

    /// From now on `due` is woken when the session is to be polled, which it is at once.
    pub(crate) fn begin(&mut self, due: Waker) {
        due.wake_by_ref();
        self.due = due;
    }

    /// [Polls](Self::poll) it until it is due again.
    pub(crate) fn poll_due(&mut self, incoming: &mut Vec<Incoming>) -> Poll<Result<(), h2::Error>> {
        let due = self.due.clone();
        self.poll(&mut Context::from_waker(&due), incoming)
    }

    /// Reads and writes what can be; ready when the connection has ended. Requests go to `incoming`.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, incoming: &mut Vec<Incoming>) -> Poll<Result<(), h2::Error>> {
        match &mut self.role {
            Role::Client { connection, .. } => std::pin::Pin::new(connection).poll(cx),
            Role::Server(connection) => loop {
                match connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok(request))) => incoming.push(request),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                }
            },
        }
    }

    /// Sends a request; pending while those before it wait for the peer's limit. Only a client has any to send.
    pub(crate) fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Option<Request<()>>,
    ) -> Poll<Result<Option<Sent>, h2::Error>> {
        let Role::Client {
            requests: Some(requests),
            ..
        } = &mut self.role
        else {
            return Poll::Ready(Ok(None));
        };
        std::task::ready!(requests.poll_ready(cx))?;
        let sent = request.take().map(|request| requests.send_request(request, false));
        Poll::Ready(sent.transpose())
    }

    /// How many requests the server takes at once; 0 until it has said so. Only a client has any to send.
    #[cfg(feature = "forward")]
    pub(crate) fn most_requests(&self) -> usize {
        match &self.role {
            Role::Client { connection, .. } => connection.max_concurrent_send_streams(),
            Role::Server(_) => 0,
        }
    }

    /// A server takes no more requests than are on their way, and ends when those are served. A client makes no more
    /// requests, and ends when those that it has made are over.
    #[cfg(feature = "forward")]
    pub(crate) fn finish(&mut self) {
        self.due.wake_by_ref();
        match &mut self.role {
            Role::Client { requests, .. } => *requests = None,
            Role::Server(connection) => connection.graceful_shutdown(),
        }
    }

    /// A server ends at once. A client cannot.
    #[cfg(feature = "forward")]
    pub(crate) fn abort(&mut self, reason: h2::Reason) {
        self.due.wake_by_ref();
        if let Role::Server(connection) = &mut self.role {
            connection.abrupt_shutdown(reason);
        }
    }

    /// Changes the window of every stream. It fails while an earlier change is on its way.
    pub(crate) fn set_stream_window(&mut self, bytes: u32) -> Result<(), h2::Error> {
        match &mut self.role {
            Role::Client { connection, .. } => connection.set_initial_window_size(bytes),
            Role::Server(connection) => connection.set_initial_window_size(bytes),
        }?;
        self.due.wake_by_ref();
        Ok(())
    }

    /// Changes the window of the connection. The peer is told when half of it is used up.
    pub(crate) fn set_connection_window(&mut self, bytes: u32) {
        match &mut self.role {
            Role::Client { connection, .. } => connection.set_target_window_size(bytes),
            Role::Server(connection) => connection.set_target_window_size(bytes),
        }
    }

    /// What sends PINGs, the first time.
    pub(crate) fn pings(&mut self) -> Option<PingPong> {
        match &mut self.role {
            Role::Client { connection, .. } => connection.ping_pong(),
            Role::Server(connection) => connection.ping_pong(),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.role {
            Role::Client { .. } => "Client",
            Role::Server(_) => "Server",
        })
    }
}
