//! One client's connection: a request, its answer, and the tunnel or the end.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Handle,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info};
use tunnel_core::{
    Client, OpenRequest, Opened, Opener, RefusalKind, Selector, StreamCode, StreamHead, Target,
    relay::{Meter as _, Party, RelayOptions, Socket, relay},
};

use crate::{
    AGENT_HEADER, AGENT_LABELS_HEADER,
    auth::Credentials,
    config::Config,
    head::{self, NoRequest},
    metrics::{BytesMoved, FrontendLabels, Held, Metrics},
    pending::{ClientKey, PendingDials, TooMany},
    request::Request,
    response::{self, RefusalResponse},
};

/// How much longer than the limit of the dial its opener has to say that the limit was passed, and by whom.
const GRACE: Duration = Duration::from_secs(1);
/// How long the client may take to accept the 200, for which its socket has room unless it is broken.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that is read and thrown away while a client may still be sending and has not read its refusal.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;
/// How much is read at once where little is expected.
const READ: usize = 4096;

/// What the connections of a frontend share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The label of the metrics.
    pub(crate) name: &'static str,
    pub(crate) config: Config,
    pub(crate) opener: Arc<dyn Opener>,
    pub(crate) pending: PendingDials,
    pub(crate) metrics: Metrics,
    pub(crate) meter: Arc<BytesMoved>,
    /// Every connection has its task here.
    pub(crate) tasks: TaskTracker,
    /// Ends everything at once.
    pub(crate) kill: CancellationToken,
}

impl Shared {
    fn relay_options(&self) -> RelayOptions {
        let mut options = RelayOptions::new(Party::Client);
        options.idle_limit = self.config.idle_timeout;
        options.half_close_limit = self.config.half_close_timeout;
        options.shutdown = Some(self.kill.clone());
        options.meter = Some(Arc::clone(&self.meter) as _);
        options
    }
}

/// Whose connection it is, before any request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) client: Client,
    /// The user id of a client on a Unix socket.
    pub(crate) user: Option<u32>,
    /// Why it will be refused, whatever it asks for.
    pub(crate) unwelcome: Option<RefusalResponse>,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            Some(user) => write!(f, "{} with user id {user}", self.client),
            None => self.client.fmt(f),
        }
    }
}

/// Why there is no tunnel.
enum NoTunnel {
    Left,
    Refused(RefusalResponse),
}

impl From<RefusalResponse> for NoTunnel {
    fn from(response: RefusalResponse) -> Self {
        Self::Refused(response)
    }
}

/// Serves one connection until it has ended or has a tunnel, which is returned.
pub(crate) async fn serve<S: Socket>(mut socket: S, mut caller: Caller, shared: &Shared) -> Option<Tunnel<S>> {
    let mut buffer = BytesMut::new();
    let opened = tokio::select! {
        opened = request(&mut socket, &mut buffer, &mut caller, shared) => opened,
        () = shared.kill.cancelled() => return None,
    };
    match opened {
        Ok((target, opened, sent)) => {
            let said = Said { sent, left: buffer };
            return Some(Tunnel {
                socket,
                said,
                caller,
                target,
                opened,
            });
        }
        Err(NoTunnel::Left) => {}
        Err(NoTunnel::Refused(response)) => {
            shared.metrics.answered(shared.name, response.status);
            let bytes = response.render(&shared.config.server_id);
            let refusing = refuse(&mut socket, &bytes, buffer);
            tokio::select! {
                _ = timeout(shared.config.linger, refusing) => {}
                () = shared.kill.cancelled() => {}
            }
        }
    }
    None
}

/// A tunnel that the client does not know of yet.
pub(crate) struct Tunnel<S> {
    socket: S,
    said: Said,
    caller: Caller,
    target: Target,
    opened: Opened,
}

/// What a client has said before its tunnel stood.
struct Said {
    /// How many bytes the target has been sent.
    sent: u64,
    /// What has not been sent.
    left: BytesMut,
}

/// Reads the request and opens the stream that it asks for, with what came right behind the request. Gives how much of
/// that was sent; `buffer` then holds the rest, and what came since.
async fn request<S: Socket>(
    socket: &mut S,
    buffer: &mut BytesMut,
    caller: &mut Caller,
    shared: &Shared,
) -> Result<(Target, Opened, u64), NoTunnel> {
    let abandoned = || {
        shared
            .metrics
            .abandoned
            .get_or_create(&FrontendLabels { frontend: shared.name })
            .inc();
        NoTunnel::Left
    };
    let mut read = head::read(socket, buffer, &shared.config).await;
    if let Some(response) = caller.unwelcome.take()
        && !matches!(read, Err(NoRequest::Left(_)))
    {
        read = Err(NoRequest::Refused(response));
    }
    let request = match read {
        Ok(request) => request,
        // Health checks do that.
        Err(NoRequest::Left(0)) => return Err(NoTunnel::Left),
        Err(NoRequest::Left(bytes)) => {
            debug!(client = %caller, bytes, "the client left within its request");
            return Err(abandoned());
        }
        Err(NoRequest::Refused(response)) => {
            info!(client = %caller, status = response.status, reason = %response.text, "refused");
            return Err(response.into());
        }
    };
    let target = request.target.clone();
    let started = Instant::now();
    let early = if buffer.is_empty() {
        Bytes::new()
    } else {
        buffer.split().freeze()
    };
    let (offered, room) = (early.len(), shared.config.max_early.saturating_sub(early.len()));
    let opened = tokio::select! {
        // The answer, if it is there, counts even if the client leaves at the same time.
        biased;
        opened = open(request, early, caller, shared) => opened,
        () = gone(socket, buffer, room) => {
            info!(client = %caller, %target, after = ?started.elapsed(), "the client left before the answer");
            return Err(abandoned());
        }
    };
    match opened {
        Ok(opened) => {
            let left = &opened.early;
            if !left.is_empty() {
                *buffer = [left, &**buffer].concat().as_slice().into();
            }
            let sent = (offered - left.len()) as u64;
            Ok((target, opened, sent))
        }
        Err(response) => {
            info!(client = %caller, %target, status = response.status, reason = %response.text, "refused");
            Err(response.into())
        }
    }
}

/// Authenticates the client and opens the stream, within the limits.
async fn open(request: Request, early: Bytes, caller: &mut Caller, shared: &Shared) -> Result<Opened, RefusalResponse> {
    let limit = shared.config.dial_timeout;
    let start = Instant::now();
    let opening = async {
        admit(&request, caller, shared).await?;
        let key = ClientKey::of(&caller.client, caller.user);
        let _pending = shared
            .pending
            .begin(key)
            .map_err(|which| too_many(which, &shared.config))?;
        let mut head = StreamHead::new(request.target);
        head.client = caller.client.addr;
        head.deadline = Some(limit.saturating_sub(start.elapsed()));
        head.trace = request.trace;
        let request = OpenRequest {
            client: caller.client.clone(),
            selector: request.selector,
            head,
            early,
        };
        shared.opener.open(request).await.map_err(RefusalResponse::from)
    };
    timeout(limit.saturating_add(GRACE), opening).await.unwrap_or_else(|_| {
        let text = format!("no answer within {limit:?}");
        Err(RefusalResponse::of_kind(RefusalKind::ConnectionTimeout, text))
    })
}

/// Whether this client may ask for this at all; adds what its credentials prove to its identity.
async fn admit(request: &Request, caller: &mut Caller, shared: &Shared) -> Result<(), RefusalResponse> {
    if let Some(authenticator) = &shared.config.authenticator {
        let credentials = request.authorization.as_ref().map(Credentials::parse).transpose();
        let identity = match credentials {
            Ok(credentials) => authenticator.authenticate(&caller.client, credentials.as_ref()).await,
            Err(malformed) => Err(malformed),
        };
        caller.client.identity =
            identity.map_err(|error| RefusalResponse::unauthenticated(error.0, authenticator.challenges()))?;
    }
    if !shared.config.agent_headers && request.selector != Selector::Any {
        let text =
            format!("this frontend does not let clients choose: {AGENT_HEADER} and {AGENT_LABELS_HEADER} are off");
        return Err(RefusalResponse::of_kind(RefusalKind::HttpRequestDenied, text));
    }
    Ok(())
}

fn too_many(which: TooMany, config: &Config) -> RefusalResponse {
    match which {
        TooMany::OfClient => {
            let limit = config.max_pending_dials_per_client;
            let text = format!("this client has {limit} dials pending, as many as it may have");
            RefusalResponse::new(429, RefusalKind::HttpRequestDenied, text)
        }
        TooMany::InAll => {
            let limit = config.max_pending_dials;
            let text = format!("{limit} dials are pending, as many as this frontend may have");
            RefusalResponse::of_kind(RefusalKind::ConnectionLimitReached, text)
        }
    }
}

/// Resolves when the client has left: it has ended its sending half (who does that before the answer cannot want the
/// tunnel) or its socket has failed. What it sends meanwhile is kept in `buffer`, up to `max` bytes; then nothing is
/// read any more, and the limit of the dial has to do.
async fn gone<S: AsyncRead + Unpin>(socket: &mut S, buffer: &mut BytesMut, max: usize) {
    while buffer.len() < max {
        let room = (max - buffer.len()).min(READ);
        match socket.read_buf(&mut buffer.limit(room)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    std::future::pending().await
}

/// Writes a refusal and closes. A socket that is closed while bytes from the client are unread sends a reset, which
/// can overtake the refusal; so those bytes are read and thrown away until the client has closed, too.
async fn refuse<S: Socket>(socket: &mut S, response: &[u8], mut buffer: BytesMut) -> std::io::Result<()> {
    socket.write_all(response).await?;
    socket.shutdown().await?;
    let mut discarded = 0;
    buffer.reserve(READ);
    while discarded < MAX_DISCARDED {
        buffer.clear();
        match socket.read_buf(&mut (&mut buffer).limit(READ)).await? {
            0 => break,
            read => discarded += read,
        }
    }
    Ok(())
}

impl<S: Socket> Tunnel<S> {
    /// The runtime that serves its stream's connection, if that is known.
    pub(crate) fn home(&self) -> Option<&Handle> {
        self.opened.home.as_ref()
    }

    /// Says 200 and moves bytes until both directions have ended. A tunnel that has moved takes its socket with it; `held`
    /// is dropped at the end.
    pub(crate) async fn run<H: Send>(self, shared: Arc<Shared>, has_moved: bool, _held: H) {
        let Self {
            mut socket,
            said,
            caller,
            target,
            opened,
        } = self;
        let Opened { stream, agent, .. } = opened;
        if has_moved && let Err(error) = socket.settle() {
            debug!(client = %caller, %error, "the client's socket stays with another thread");
        }
        shared.metrics.answered(shared.name, 200);
        let _open = Held::new(&shared.metrics.tunnels_open, shared.name);
        shared.meter.sent(said.sent);
        let start = Instant::now();
        let confirmed = tokio::select! {
            confirmed = confirm(&mut socket) => confirmed,
            // The relay ends at once.
            () = shared.kill.cancelled() => Ok(()),
        };
        let mut options = shared.relay_options();
        let has_spoken = said.sent > 0 || !said.left.is_empty();
        options.hold = (!has_spoken).then_some(shared.config.hold);
        let report = match confirmed {
            Ok(()) => relay(socket, detached(said.left), stream, options).await,
            Err(error) => {
                relay(socket, Bytes::new(), stream, options).end(StreamCode::TARGET_RESET);
                info!(client = %caller, %agent, %target, %error, "the client's socket failed at the answer");
                return;
            }
        };
        info!(
            client = %caller,
            %agent,
            %target,
            sent = said.sent + report.sent,
            received = report.received,
            duration = ?start.elapsed(),
            end = report.ended.label(),
            "{report}"
        );
    }
}

/// The bytes without the buffer, which would be kept for as long as the tunnel is quiet.
fn detached(early: BytesMut) -> Bytes {
    if early.is_empty() { Bytes::new() } else { early.freeze() }
}

/// Writes the 200. No byte of the target can be in front of it, for nothing else writes to the socket, nor arrive with it
/// at a client that speaks first, for the relay holds such bytes back; one that has spoken already, before it was asked
/// to, can take the target's answer at any time.
async fn confirm<S: Socket>(socket: &mut S) -> std::io::Result<()> {
    let writing = async {
        socket.write_all(response::ESTABLISHED).await?;
        socket.flush().await
    };
    timeout(WRITE_TIMEOUT, writing).await?
}

#[cfg(test)]
pub(crate) mod tests {
    use async_trait::async_trait;
    use tokio::io::DuplexStream;
    use tunnel_core::OpenFailure;

    use super::*;

    const REQUEST: &[u8] = b"CONNECT a.example:1 HTTP/1.1\r\n\r\n";

    /// Never answers.
    #[derive(Debug)]
    struct Silent;

    #[async_trait]
    impl Opener for Silent {
        async fn open(&self, _: OpenRequest) -> Result<Opened, OpenFailure> {
            std::future::pending().await
        }
    }

    /// What a frontend has whose opener never answers.
    pub(crate) fn shared(config: Config) -> Shared {
        Shared {
            name: "connect",
            pending: PendingDials::new(1, 1),
            config,
            opener: Arc::new(Silent),
            meter: Arc::new(Metrics::default().meter("connect")),
            metrics: Metrics::default(),
            tasks: TaskTracker::new(),
            kill: CancellationToken::new(),
        }
    }

    /// A client of such a frontend.
    fn connect(config: Config) -> DuplexStream {
        let (client, server) = tokio::io::duplex(512);
        let shared = shared(config);
        tokio::spawn(async move { serve(server, Caller::default(), &shared).await.is_some() });
        client
    }

    pub(crate) fn config() -> Config {
        Config::new("gw".parse().unwrap())
    }

    async fn status(client: &mut DuplexStream) -> String {
        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        response.split(' ').nth(1).unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_has_its_time() {
        let start = Instant::now();
        let mut client = connect(config());
        client.write_all(REQUEST).await.unwrap();
        assert_eq!(status(&mut client).await, "504");
        assert_eq!(start.elapsed(), config().dial_timeout + GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_has_its_time() {
        let start = Instant::now();
        let mut client = connect(config());
        assert_eq!(status(&mut client).await, "408");
        assert_eq!(start.elapsed(), config().head_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn early_bytes_are_bounded() {
        let mut client = connect(config());
        client.write_all(REQUEST).await.unwrap();
        let mut accepted = 0;
        while let Ok(written) = timeout(Duration::from_secs(1), client.write(&[0; 512])).await {
            accepted += written.unwrap();
        }
        let held = accepted.checked_sub(config().max_early).unwrap();
        assert!(held <= 512, "{accepted}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_client_that_never_closes_is_closed() {
        const STEP: Duration = Duration::from_millis(10);
        let start = Instant::now();
        let mut client = connect(config());
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(status(&mut client).await, "405");
        while client.write_all(b"more").await.is_ok() {
            tokio::time::sleep(STEP).await;
        }
        let linger = config().linger;
        assert!((linger..=linger + STEP).contains(&start.elapsed()));
    }
}
