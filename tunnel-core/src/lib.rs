//! The carrier seam and everything above it.
//!
//! A *carrier* is one wire protocol that yields multiplexed, authenticated connections between an agent and a
//! server; it implements the traits of [`carrier`]. A *frontend* is what clients of the server speak; it opens
//! streams through [`Opener`]. Between them stand the accept loop, the registry of agents, routing, policy and the
//! relay. This crate knows no carrier and no frontend.
//!
//! It re-exports `tunnel-proto` as [`proto`] and its vocabulary at the root.

mod accept;
pub mod admission;
pub mod agent;
pub mod carrier;
pub mod dial;
pub mod error;
pub mod inbound;
mod keep;
mod metrics;
pub mod mux;
pub mod opener;
pub mod policy;
pub mod registry;
pub mod relay;
pub mod route;
pub mod server;
pub mod stream;
mod threads;
mod time;

pub use tunnel_proto as proto;
pub use tunnel_proto::{
    AgentId, Answer, Claim, CloseCode, Generation, Host, HostPort, Identity, Keepalive, Labels, Metadata, Refusal,
    RefusalKind, Rejection, Secret, ServerId, StreamCode, StreamHead, StreamLimits, Target, Text, Welcome,
};

pub use accept::{AcceptConfig, NoPlace, Place, Places};
pub use admission::{AuthError, Authenticator, NoToken, Require, TokenAuthenticator};
pub use agent::{
    Agent, AgentBuilder, AgentConfig, AgentMetrics, AgentOpenError, AgentStatus, Callers, CredentialSource,
    RunningAgent,
};
pub use carrier::{
    Admission, Admitted, Arrival, Backpressure, Capabilities, Carrier, Confirmation, Connection, ConnectionStats,
    Inbound, Incoming, Listener, Messages, Openers, Peer, PeerRole,
};
pub use dial::{Resolve, SystemResolver, TargetDialOptions, TargetDialer, TargetSocket};
pub use error::{AcceptError, ConnectionError, DialError, HandshakeError, Initiator, OpenError, RecvError, SendError};
pub use inbound::InboundHandler;
pub use opener::{Client, OpenFailure, OpenRequest, Opened, Opener, Selector};
pub use policy::{AgentPolicy, AgentPolicyConfig, Policy, PolicyConfig};
pub use relay::{Counters, End, Meter, Party, Relay, RelayOptions, RelayReport, Socket, relay};
pub use server::{Server, ServerBuilder, ServerConfig, ServerMetrics};
pub use stream::{Duplex, DuplexIo, RecvStream, SendStream};
pub use threads::{Home, Threads};
