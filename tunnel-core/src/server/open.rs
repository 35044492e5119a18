//! Opening streams through agents.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tracing::debug;
use tunnel_proto::{AgentId, Labels, Refusal, RefusalKind, StreamCode, StreamHead, Text};

use super::{
    Inner,
    metrics::RefusalLabels,
    streams::{Tracked, Wish},
};
use crate::{
    carrier,
    error::{ConnectionError, OpenError},
    metrics::Counted,
    opener::{OpenFailure, OpenRequest, Opened, Selector},
    policy::{Access, Denied, Scope},
    registry::{InFlight, LiveConnection, Session, View},
    route::{self, NoRoute, RouteRequest},
    stream::Duplex,
    time::after,
};

/// A client that gives up earlier than this says nothing about the agent.
const PATIENCE: Duration = Duration::from_secs(1);
/// The agent is told to answer this much before the deadline, at most, so that its reason arrives in time.
const MARGIN: Duration = Duration::from_millis(500);

/// The most that is sent with a head. What comes first, such as a ClientHello or a request, fits; and no more than that
/// is carried for nothing when the stream is refused.
const MAX_EARLY: usize = 16 * 1024;

/// On whose behalf a stream is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnBehalf {
    /// Of a client, as far as the policy allows.
    Client,
    /// Of the program that the server is part of.
    Program,
}

impl Inner {
    /// Opens a stream and counts what comes of it.
    pub(super) async fn open(
        self: &Arc<Self>,
        request: OpenRequest,
        on_behalf: OnBehalf,
    ) -> Result<Opened, OpenFailure> {
        let started = Instant::now();
        let pending = Counted::in_gauge(&self.metrics.traffic.dials_pending);
        let outcome = self.open_by(started, &request, on_behalf).await;
        drop(pending);
        let result = match &outcome {
            Ok(_) => "opened",
            Err(failure) => failure.refusal.kind.name(),
        };
        self.metrics.traffic.dialled(result, started.elapsed());
        if let Err(failure) = &outcome {
            let by = if failure.agent.is_some() { "agent" } else { "server" };
            let kind = failure.refusal.kind.name();
            self.metrics.refusals.get_or_create(&RefusalLabels { by, kind }).inc();
            debug!(client = %request.client, target = %request.head.target, %failure, "stream refused");
        }
        outcome
    }

    async fn open_by(
        self: &Arc<Self>,
        started: Instant,
        request: &OpenRequest,
        on_behalf: OnBehalf,
    ) -> Result<Opened, OpenFailure> {
        let Ok(_place) = self.dials.try_acquire() else {
            let limit = self.config.max_pending_dials;
            let text = format!("{limit} streams wait for their answer, which is this server's limit; try again later");
            return Err(by_server(RefusalKind::ConnectionLimitReached, text));
        };
        // Shutdown waits for this, so it comes before the question whether there is one.
        let _running = self.running.token();
        let timeout = self.config.dial_timeout;
        let deadline = after(
            started,
            request.head.deadline.map_or(timeout, |asked| asked.min(timeout)),
        );
        let policy = self.policy.load_full();
        let access = Access {
            client: &request.client.identity,
            target: &request.head.target,
            selects: request.selector != Selector::Any,
        };
        let scope = (on_behalf == OnBehalf::Client).then(|| policy.scope(&access));
        let mut tried = Tried::default();
        let mut last = None;
        let mut tries = 0;
        while tries < self.config.max_tries {
            if self.is_draining() {
                let text = "this server is shutting down; use another one";
                return Err(by_server(RefusalKind::DestinationUnavailable, text));
            }
            let chosen = self.choose(request, scope.as_ref(), &self.registry.view(), &tried);
            let (session, live) = match (chosen, last.take()) {
                (Ok(chosen), None) => chosen,
                (Ok(chosen), Some(_)) => {
                    self.metrics.dial_retries.inc();
                    chosen
                }
                (Err(refusal), before) => {
                    return Err(before.unwrap_or(OpenFailure { refusal, agent: None }));
                }
            };
            let agent = session.agent().clone();
            // The whole of it in every try: an agent that another may follow has handed none of it on.
            let mut early = request.early.slice(..request.early.len().min(MAX_EARLY));
            let offered = early.len();
            match self.try_open(&live, &request.head, &mut early, deadline).await {
                Ok((stream, in_flight)) => {
                    let sent = offered - early.len();
                    let wish = scope.is_some().then(|| Wish {
                        client: request.client.clone(),
                        target: request.head.target.clone(),
                        selects: access.selects,
                        agent: Arc::clone(session.profile()),
                    });
                    let mut stream = Tracked::opened(self, stream, sent, wish, in_flight);
                    // The stream is in the table now: either this sees a policy that was swapped meanwhile, or whoever
                    // swaps it sees the stream.
                    let current = self.policy.load();
                    if scope.is_some()
                        && !Arc::ptr_eq(&current, &policy)
                        && let Err(denied) = current.check(&access, &agent, session.labels())
                    {
                        stream.tx.reset(StreamCode::POLICY);
                        stream.rx.stop(StreamCode::POLICY);
                        return Err(OpenFailure {
                            refusal: forbidden(request, &denied),
                            agent: None,
                        });
                    }
                    debug!(client = %request.client, target = %request.head.target, %agent, "stream opened");
                    return Ok(Opened::new(stream, agent, request.early.slice(sent..)).at_home(live.home().cloned()));
                }
                Err(failed) => {
                    let failure = OpenFailure {
                        refusal: failed.refusal,
                        agent: Some(agent.clone()),
                    };
                    match failed.elsewhere {
                        Elsewhere::Nowhere => return Err(failure),
                        // The agent has not seen it, and there are only so many connections.
                        Elsewhere::Connection => tried.connections.push(live.id()),
                        Elsewhere::Agent => {
                            tries += 1;
                            tried.agents.push(agent);
                        }
                    }
                    last = Some(failure);
                }
            }
        }
        Err(last.unwrap_or_else(|| by_server(RefusalKind::ProxyInternalError, "no agent was tried")))
    }

    /// Chooses an agent that the policy allows and that was not tried, and the fittest of its connections.
    fn choose(
        &self,
        request: &OpenRequest,
        scope: Option<&Scope<'_>>,
        view: &View,
        tried: &Tried,
    ) -> Result<(Arc<Session>, Arc<LiveConnection>), Refusal> {
        if let Some(denied) = scope.and_then(Scope::denied_everywhere) {
            return Err(forbidden(request, &denied));
        }
        let check = |agent: &AgentId, labels: &Labels| scope.map_or(Ok(()), |scope| scope.check(agent, labels));
        let wish = RouteRequest {
            selector: &request.selector,
            target: &request.head.target,
        };
        let candidates = route::candidates(&self.strategies, &wish, view).map_err(|no_route| {
            // Who may not use an agent is not told whether it is connected.
            match &request.selector {
                Selector::Agent(agent) => match check(agent, &Labels::default()) {
                    Err(denied) => forbidden(request, &denied),
                    Ok(()) => no_route.into(),
                },
                _ => no_route.into(),
            }
        })?;
        let now = Instant::now();
        let load = |index| {
            let session: &Session = candidates.get(index)?;
            let usable = tried.leaves(session) && check(session.agent(), session.labels()).is_ok();
            usable.then(|| session.load(now)).flatten()
        };
        let chosen = route::choose(candidates.len(), load, &mut fastrand::Rng::new())
            .and_then(|index| candidates.get(index))
            .and_then(|session| {
                let live = route::connection(session, now, |live| !tried.connections.contains(&live.id()))?;
                Some((Arc::clone(session), Arc::clone(live)))
            });
        chosen.ok_or_else(|| {
            let mut denials = (0..candidates.len())
                .filter_map(|index| candidates.get(index))
                .map(|session| check(session.agent(), session.labels()).err());
            match denials.next().flatten() {
                Some(denied) if denials.all(|denial| denial.is_some()) => forbidden(request, &denied),
                _ => NoRoute::NoneFits { connected: view.len() }.into(),
            }
        })
    }

    /// Opens a stream on one connection.
    async fn try_open(
        &self,
        live: &Arc<LiveConnection>,
        head: &StreamHead,
        early: &mut Bytes,
        deadline: Instant,
    ) -> Result<(Duplex, InFlight), Failed> {
        // The registry may be a moment behind: what has ended before the dial was certainly not delivered.
        if let Some(cause) = carrier::ended(&**live.connection()).await {
            return Err(Failed::before(&cause));
        }
        let in_flight = live.enter();
        let mut dial = Dial::new(live);
        let left = deadline.saturating_duration_since(dial.started);
        let mut head = head.clone();
        head.deadline = Some(left - (left / 10).min(MARGIN));
        let opened = tokio::select! {
            biased;
            opened = live.connection().open_with(head, early) => opened,
            cause = live.ended() => Err(OpenError::Connection(cause)),
            () = self.stop.cancelled() => {
                dial.settled = true;
                return Err(Failed::here(RefusalKind::DestinationUnavailable, "the server is shutting down"));
            }
            () = sleep_until(deadline) => {
                let text = format!("the agent did not answer within {left:?}");
                return Err(Failed::here(RefusalKind::ConnectionTimeout, text));
            }
        };
        dial.settled = true;
        match &opened {
            Err(OpenError::Draining | OpenError::Connection(_)) => {}
            Ok(_) | Err(_) => live.answered(),
        }
        opened.map(|stream| (stream, in_flight)).map_err(Failed::from)
    }
}

/// What was tried for one stream and shall not be tried again.
#[derive(Debug, Default)]
struct Tried {
    agents: Vec<AgentId>,
    connections: Vec<u64>,
}

impl Tried {
    /// Whether a session has a connection that may be tried.
    fn leaves(&self, session: &Session) -> bool {
        !self.agents.contains(session.agent())
            && session
                .connections()
                .iter()
                .any(|live| !self.connections.contains(&live.id()))
    }
}

/// Why one connection did not do.
#[derive(Debug)]
struct Failed {
    refusal: Refusal,
    elsewhere: Elsewhere,
}

/// Where the stream may be tried next.
///
/// Only where it is certain that the target has seen nothing of it, neither a connection nor the early bytes: it would
/// see them twice. That is so when the head was never sent, and when the agent has refused, because an agent hands
/// nothing on before it accepts. Whatever ends without an answer, the stream or its connection, has to count as
/// delivered: the answer may have been on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Elsewhere {
    /// Nowhere: the target may have seen it, or nothing else would do better.
    Nowhere,
    /// On another connection, of the same agent if need be.
    Connection,
    /// Through another agent.
    Agent,
}

impl Failed {
    fn before(cause: &ConnectionError) -> Self {
        let text = format!("the agent's connection has ended: {cause}");
        Self {
            refusal: Refusal::new(RefusalKind::DestinationUnavailable, text),
            elsewhere: Elsewhere::Connection,
        }
    }

    fn here(kind: RefusalKind, text: impl Into<Text>) -> Self {
        Self {
            refusal: Refusal::new(kind, text),
            elsewhere: Elsewhere::Nowhere,
        }
    }
}

impl From<OpenError> for Failed {
    fn from(error: OpenError) -> Self {
        let elsewhere = match &error {
            OpenError::Draining | OpenError::Connection(_) if error.is_undelivered() => Elsewhere::Connection,
            error if error.is_undelivered() => Elsewhere::Agent,
            _ => Elsewhere::Nowhere,
        };
        let refusal = match error {
            OpenError::Refused(refusal) => refusal,
            OpenError::Draining => Refusal::new(
                RefusalKind::DestinationUnavailable,
                "the agent is draining and takes no new streams",
            ),
            OpenError::Reset(code) => {
                let text = format!("the agent ended the stream without an answer: {}", code.meaning());
                Refusal::new(RefusalKind::ConnectionTerminated, text)
            }
            OpenError::Protocol(text) => {
                let text = format!("the agent's answer was not understood: {text}");
                Refusal::new(RefusalKind::ProxyInternalError, text)
            }
            error @ OpenError::Unsupported(_) => Refusal::new(RefusalKind::ProxyConfigurationError, error.to_string()),
            OpenError::Connection(cause) => {
                let text = format!("the agent's connection ended before the answer: {cause}");
                Refusal::new(RefusalKind::ConnectionTerminated, text)
            }
        };
        Self { refusal, elsewhere }
    }
}

/// One dial on one connection. Unless it is settled, its end is held against the connection, unless it was given up
/// early: an agent that has stopped must lose its share before its silence ends the connection.
#[derive(Debug)]
struct Dial<'a> {
    live: &'a LiveConnection,
    started: Instant,
    settled: bool,
}

impl<'a> Dial<'a> {
    fn new(live: &'a LiveConnection) -> Self {
        Self {
            live,
            started: Instant::now(),
            settled: false,
        }
    }
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        if !self.settled && self.started.elapsed() >= PATIENCE {
            self.live.not_answered();
        }
    }
}

fn by_server(kind: RefusalKind, text: impl Into<Text>) -> OpenFailure {
    OpenFailure {
        refusal: Refusal::new(kind, text),
        agent: None,
    }
}

fn forbidden(request: &OpenRequest, denied: &Denied) -> Refusal {
    let (client, target) = (&request.client.identity, &request.head.target);
    let chosen = match request.selector {
        Selector::Any => "",
        _ => " through an agent of its choice",
    };
    let text = format!("the server's policy does not let {client} reach {target}{chosen}: {denied}");
    Refusal::new(RefusalKind::HttpRequestDenied, text)
}

#[cfg(test)]
mod tests {
    use tunnel_proto::CloseCode;

    use super::*;

    #[test]
    fn only_what_was_certainly_not_delivered_is_tried_elsewhere() {
        let closed = |code| OpenError::Connection(ConnectionError::remote(code, ""));
        let refused = |kind| OpenError::Refused(Refusal::new(kind, "no"));
        for (error, elsewhere) in [
            (OpenError::Draining, Elsewhere::Connection),
            (closed(CloseCode::DRAINED), Elsewhere::Connection),
            (refused(RefusalKind::ConnectionLimitReached), Elsewhere::Agent),
            (refused(RefusalKind::ConnectionRefused), Elsewhere::Nowhere),
            // Nobody answered, so the target may have seen what was sent with the head.
            (closed(CloseCode::SHUTDOWN), Elsewhere::Nowhere),
            (
                OpenError::Connection(ConnectionError::TimedOut { after: PATIENCE }),
                Elsewhere::Nowhere,
            ),
            (
                OpenError::Connection(ConnectionError::transport(std::io::Error::other("cut"))),
                Elsewhere::Nowhere,
            ),
            (OpenError::Reset(StreamCode::CANCELLED), Elsewhere::Nowhere),
            (OpenError::Reset(StreamCode::REFUSED), Elsewhere::Nowhere),
            (OpenError::Protocol("nonsense".into()), Elsewhere::Nowhere),
        ] {
            let text = error.to_string();
            assert_eq!(Failed::from(error).elsewhere, elsewhere, "{text}");
        }
    }
}
