//! Two machines and the link between them, in virtual time and without a runtime.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tunnel_proto::{
    Answer,
    mux::{Budget, Config, Event, Mux, ReadError, Side, StreamId, WriteError},
};

use crate::model::head;

/// How the link behaves, in each direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) latency: Duration,
    /// Bytes a second; none is without limit.
    pub(crate) bandwidth: Option<u64>,
    /// How many bytes the link takes ahead of the wire.
    pub(crate) backlog: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            bandwidth: None,
            backlog: 64 * 1024,
        }
    }
}

/// One end.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) mux: Mux,
    pub(crate) events: Vec<Event>,
    /// What is on its way from here: when it arrives, and what it is.
    flying: VecDeque<(Instant, Bytes)>,
    /// When the wire is free again.
    free_at: Instant,
}

/// Both ends.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) agent: End,
    pub(crate) server: End,
    pub(crate) link: Link,
}

impl Pair {
    pub(crate) fn new(config: Config, link: Link) -> Self {
        Self::with_budgets([config.clone(), config], link, [Budget::default(), Budget::default()])
    }

    pub(crate) fn with_budgets(configs: [Config; 2], link: Link, budgets: [Budget; 2]) -> Self {
        let start = Instant::now();
        let [agent, server] = configs;
        let end = |side, config, budget: &Budget| End {
            mux: Mux::new(side, config, budget.account(), start),
            events: Vec::new(),
            flying: VecDeque::new(),
            free_at: start,
        };
        Self {
            now: start,
            agent: end(Side::Agent, agent, &budgets[0]),
            server: end(Side::Server, server, &budgets[1]),
            link,
        }
    }

    pub(crate) fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Agent => &mut self.agent,
            Side::Server => &mut self.server,
        }
    }

    pub(crate) fn mux(&mut self, side: Side) -> &mut Mux {
        &mut self.end(side).mux
    }

    /// Puts on the wire what there is, as far as the link takes it.
    fn transmit(&mut self) {
        let Self { now, link, .. } = *self;
        for side in [Side::Agent, Side::Server] {
            let end = self.end(side);
            let ahead = |free_at: Instant| {
                let wait = free_at.saturating_duration_since(now).as_secs_f64();
                link.bandwidth.map_or(0.0, |rate| wait * rate as f64)
            };
            while ahead(end.free_at) < link.backlog as f64 {
                let Some(message) = end.mux.poll_message(now) else {
                    break;
                };
                let len = message.len() as f64;
                let takes = link
                    .bandwidth
                    .map_or(Duration::ZERO, |rate| Duration::from_secs_f64(len / rate as f64));
                end.free_at = end.free_at.max(now) + takes;
                end.flying.push_back((end.free_at + link.latency, message.into_bytes()));
            }
            while let Some(event) = end.mux.poll_event() {
                end.events.push(event);
            }
        }
    }

    /// Delivers what has arrived by now. Gives whether there was something.
    fn deliver(&mut self) -> bool {
        let now = self.now;
        let mut delivered = false;
        for side in [Side::Agent, Side::Server] {
            while let Some((at, _)) = self.end(side).flying.front()
                && *at <= now
            {
                let (_, message) = self.end(side).flying.pop_front().unwrap();
                self.end(side.peer()).mux.handle_message(now, message);
                delivered = true;
            }
        }
        delivered
    }

    /// Lets everything happen that happens at this moment.
    pub(crate) fn settle(&mut self) {
        loop {
            self.transmit();
            if !self.deliver() {
                break;
            }
        }
        self.transmit();
    }

    /// When something happens next: an arrival, a wire that is free again, a timer.
    fn next(&self) -> Option<Instant> {
        let now = self.now;
        let ends = [&self.agent, &self.server];
        let arrivals = ends.iter().filter_map(|end| end.flying.front().map(|(at, _)| *at));
        let backlog = Duration::from_secs_f64(
            self.link
                .bandwidth
                .map_or(0.0, |rate| self.link.backlog as f64 / rate as f64),
        );
        let wires = ends
            .iter()
            .filter(|end| end.mux.wants_send() && end.free_at > now + backlog / 2)
            .map(|end| end.free_at - backlog / 2);
        let timers = ends.iter().filter_map(|end| end.mux.poll_timeout());
        arrivals.chain(wires).chain(timers).min()
    }

    /// Goes on to the next moment at which something happens, but not beyond `until`.
    pub(crate) fn step(&mut self, until: Instant) {
        self.settle();
        let next = self.next().map_or(until, |next| next.min(until));
        self.now = next.max(self.now + Duration::from_nanos(1)).min(until.max(self.now));
        for side in [Side::Agent, Side::Server] {
            let now = self.now;
            if self.mux(side).poll_timeout().is_some_and(|at| at <= now) {
                self.mux(side).handle_timeout(now);
            }
        }
        self.settle();
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.settle();
        while self.now < until {
            self.step(until);
        }
    }

    /// Delivers nothing any more that was sent so far.
    pub(crate) fn lose(&mut self) {
        self.agent.flying.clear();
        self.server.flying.clear();
    }

    pub(crate) fn events(&mut self, side: Side) -> Vec<Event> {
        self.settle();
        std::mem::take(&mut self.end(side).events)
    }

    /// Opens a stream and has it accepted.
    pub(crate) fn stream(&mut self, opener: Side) -> StreamId {
        self.run(4 * self.link.latency);
        let now = self.now;
        let id = self.mux(opener).open(now, &head()).unwrap();
        self.run(4 * self.link.latency);
        let now = self.now;
        assert!(
            self.events(opener.peer())
                .iter()
                .any(|event| matches!(event, Event::Opened { id: of, .. } if *of == id))
        );
        self.mux(opener.peer()).answer(now, id, &Answer::Accepted);
        self.run(4 * self.link.latency);
        let answer = Answer::Accepted;
        assert!(self.events(opener).contains(&Event::Answered { id, answer }));
        id
    }

    /// Opens streams at once and has them accepted; the answers are on their way.
    pub(crate) fn open_and_accept(&mut self, opener: Side, count: usize) -> Vec<StreamId> {
        let now = self.now;
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(self.mux(opener).open(now, &head()).unwrap());
            self.settle();
        }
        self.run(2 * self.link.latency);
        let now = self.now;
        for &id in &ids {
            self.mux(opener.peer()).answer(now, id, &Answer::Accepted);
        }
        self.settle();
        ids
    }

    /// Opens streams at once and has them accepted.
    pub(crate) fn streams(&mut self, opener: Side, count: usize) -> Vec<StreamId> {
        self.run(4 * self.link.latency);
        let ids = self.open_and_accept(opener, count);
        self.run(4 * self.link.latency);
        self.agent.events.clear();
        self.server.events.clear();
        ids
    }

    /// Queues as much as is taken.
    pub(crate) fn write(&mut self, side: Side, id: StreamId, bytes: &[u8]) -> Result<usize, WriteError> {
        let mut data = Bytes::copy_from_slice(bytes);
        let (now, mut written) = (self.now, 0);
        while !data.is_empty() {
            match self.mux(side).write(now, id, &mut data) {
                Ok(count) => written += count,
                Err(WriteError::Blocked) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Reads all that is there, and says whether the clean end was.
    pub(crate) fn read(&mut self, side: Side, id: StreamId) -> Result<(Vec<u8>, bool), ReadError> {
        let (now, mut bytes) = (self.now, Vec::new());
        loop {
            match self.mux(side).read(now, id, usize::MAX) {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok((bytes, true)),
                Err(ReadError::Blocked) => return Ok((bytes, false)),
                Err(error) => return Err(error),
            }
        }
    }
}
