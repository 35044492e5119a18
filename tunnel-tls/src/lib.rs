//! Certificates: loading, hot reload, verification, peer identity and a development CA.
//!
//! [`ServerTls`] and [`ClientTls`] read certificates, keys and CAs from PEM ([`Pem`], [`Trust`]) and give out
//! rustls configurations for TLS over TCP and for QUIC. A configuration is made once and follows every reload.
//! [`peer_identity`] says what the peer's verified certificate proves. [`DevCa`] makes certificates for
//! development.
//!
//! Every configuration of the project is made here, with one cryptographic [`provider`] that prefers the
//! post-quantum key exchange X25519MLKEM768.
//!
//! ```
//! use tunnel_tls::{ClientAuth, ClientTls, DevCa, Purpose, ServerTls, Trust};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! # let dir = home.path().join("ca");
//! let ca = DevCa::create_or_load(&dir)?;
//! let files = ca.ensure("server", &["localhost".parse()?, "127.0.0.1".parse()?], Purpose::Server)?;
//! let server = ServerTls::builder(files.chain, files.key)
//!     .client_auth(ClientAuth::Required(Trust::ca(ca.certificate_file())))
//!     .build()?;
//!
//! let files = ca.ensure("agent", &["node-7".parse()?], Purpose::Client)?;
//! let client = ClientTls::builder(Trust::ca(ca.certificate_file()))
//!     .certificate(files.chain, files.key)
//!     .build()?;
//!
//! let for_quinn = (server.quic_config(&[b"tunnel/1"]), client.quic_config(&[b"tunnel/1"]));
//! let for_tokio_rustls = (server.tcp_config(&[b"h2"]), client.tcp_config(&[b"h2"]));
//! # Ok(())
//! # }
//! ```

mod auto_reload;
mod certificate;
mod client;
mod date;
mod dev_ca;
mod error;
mod explain;
mod identity;
mod pem;
mod private_file;
mod provider;
mod reload;
mod server;
mod sessions;
mod trust;
mod watch;

pub use auto_reload::{AutoReload, ReloadStatus};
pub use certificate::CertificateFacts;
pub use client::{ClientTls, ClientTlsBuilder};
pub use date::Date;
pub use dev_ca::{CertName, DevCa, DevCaError, Issued, IssuedFiles, Purpose};
pub use error::{Block, TlsError};
pub use explain::{explain, explain_end, explain_received_alert, explain_sent_alert};
pub use identity::{IdentityError, fingerprint, peer_identity};
pub use pem::Pem;
pub use provider::{install_provider, provider};
pub use reload::Reload;
pub use server::{ClientAuth, ServerTls, ServerTlsBuilder};
pub use trust::Trust;
pub use watch::FileWatch;
