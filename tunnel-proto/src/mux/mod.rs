//! The mux: many streams over one ordered pipe of messages.
//!
//! A *link* carries messages in order and nothing else: a WebSocket, one gRPC call. [`Mux`] is the machine at either
//! end of it. It performs no I/O, has no clock of its own and draws no random numbers: the time is an argument, and
//! what happens depends on nothing but its inputs. Its methods are of four kinds:
//!
//! - **input**: [`Mux::handle_message`], [`Mux::handle_timeout`], [`Mux::handle_link_closed`], [`Mux::reclaim`];
//! - **commands**, of the application: [`Mux::open`], [`Mux::answer`], [`Mux::write`], [`Mux::finish`],
//!   [`Mux::reset`], [`Mux::read`], [`Mux::stop`], [`Mux::release_send`], [`Mux::release_recv`], [`Mux::drain`],
//!   [`Mux::close`];
//! - **output**, to be drained after every input and command in this order: [`Mux::poll_message`] while the link has
//!   room, [`Mux::poll_event`] until it gives `None`, [`Mux::poll_timeout`];
//! - **facts**, which change nothing.
//!
//! The bytes are specified in `docs/wire.md` §9.
//!
//! A carrier whose connection has streams of its own uses some of the parts: [`Frame`]s on a control stream, [`Queue`],
//! [`Schedule`], [`Window`], [`Watch`] and the [`Budget`].

mod budget;
#[cfg(test)]
#[path = "budget/interleaving.rs"]
mod budget_interleaving;
#[cfg(test)]
#[path = "budget/tests.rs"]
mod budget_tests;
mod config;
mod credit;
mod event;
mod flood;
mod frame;
mod half;
mod id;
mod keepalive;
mod machine;
mod message;
mod queue;
mod schedule;
mod stream;
mod window;

/// What threads share. The tests that decide about the order of threads put their own in its place.
mod sync {
    pub(super) use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic};
}

pub use self::{
    budget::{Account, Budget, Call, Exhausted, Pressure},
    config::{Config, ConfigBuilder, InvalidConfig, Windows},
    event::{CloseReason, Event, MuxStats, OpenBlocked, ReadError, WriteError},
    frame::{Frame, FrameStream, Frames, Hello, MAX_MESSAGE, MAX_PAYLOAD},
    id::{Side, StreamId},
    keepalive::{Verdict, Watch},
    machine::Mux,
    message::Message,
    queue::Queue,
    schedule::{Next, Schedule, Turn},
    window::Window,
};
