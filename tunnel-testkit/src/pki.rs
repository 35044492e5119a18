//! Certificates for tests of carriers with TLS.

#![allow(
    clippy::expect_used,
    reason = "a test fails by panicking; clippy exempts only functions marked as tests"
)]

use std::time::Duration;

use tunnel_core::Identity;
use tunnel_tcp::{ClientSecurity, ServerSecurity};
use tunnel_tls::{CertName, ClientAuth, ClientTls, DevCa, Issued, Pem, Purpose, ServerTls, Trust};

/// A CA of its own, in a directory that is removed with it, one server and one client.
///
/// # Panics
///
/// Whatever fails here panics: it is for tests.
#[derive(Debug)]
pub struct Pki {
    ca: DevCa,
    server: Issued,
    client: Issued,
    _dir: tempfile::TempDir,
}

/// The name of the server in [`Pki`].
pub const NAME: &str = "server.test";

/// Both ends' part of TLS.
pub type Tls<'a> = (&'a ServerTls, &'a ClientTls);

/// TLS at both ends with this protocol of ALPN, or clear text.
#[must_use]
pub fn security(tls: Option<Tls<'_>>, alpn: &[u8]) -> (ServerSecurity, ClientSecurity) {
    let Some((server, client)) = tls else {
        return (ServerSecurity::Plain, ClientSecurity::Plain);
    };
    let name = NAME.parse().expect("a name");
    let client = ClientSecurity::tls(client, &name, &[alpn]).expect("a name that certificates can hold");
    (ServerSecurity::tls(server, &[alpn]), client)
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// Makes the CA and both certificates.
    #[must_use]
    pub fn new() -> Self {
        Self::named(CertName::Dns(NAME.to_owned()), CertName::Dns("node-7.test".to_owned()))
    }

    /// Those of a mesh: the certificates hold these SPIFFE IDs, and no names.
    #[must_use]
    pub fn mesh(server: &str, client: &str) -> Self {
        Self::named(CertName::Uri(server.to_owned()), CertName::Uri(client.to_owned()))
    }

    fn named(server: CertName, client: CertName) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = DevCa::create_or_load(dir.path().join("ca")).expect("a CA");
        let issue = |name, purpose| ca.issue(&[name], purpose, DAY).expect("a certificate");
        Self {
            server: issue(server, Purpose::Server),
            client: issue(client, Purpose::Client),
            ca,
            _dir: dir,
        }
    }

    /// Trusts this CA.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::ca(self.ca.certificate_file())
    }

    /// A server `server.test` that requires client certificates of this CA.
    #[must_use]
    pub fn server(&self) -> ServerTls {
        self.server_with(ClientAuth::Required(self.trust()))
    }

    /// One that requires client certificates of another CA than its own.
    #[must_use]
    pub fn server_trusting(&self, other: &Self) -> ServerTls {
        self.server_with(ClientAuth::Required(other.trust()))
    }

    /// A server `server.test` that treats clients so.
    #[must_use]
    pub fn server_with(&self, clients: ClientAuth) -> ServerTls {
        let Issued { chain, key, .. } = &self.server;
        ServerTls::builder(Pem::text(chain), Pem::text(key))
            .client_auth(clients)
            .build()
            .expect("a server configuration")
    }

    /// A client `node-7.test` that trusts this CA and names its server `server.test`.
    #[must_use]
    pub fn client(&self) -> ClientTls {
        self.stranger(self)
    }

    /// One with a certificate of another CA.
    #[must_use]
    pub fn stranger(&self, other: &Self) -> ClientTls {
        let Issued { chain, key, .. } = &other.client;
        ClientTls::builder(self.trust())
            .certificate(Pem::text(chain), Pem::text(key))
            .server_name(NAME)
            .build()
            .expect("a client configuration")
    }

    /// A client that expects its server to have this SPIFFE ID.
    #[must_use]
    pub fn client_expecting(&self, spiffe: &str) -> ClientTls {
        let Issued { chain, key, .. } = &self.client;
        ClientTls::builder(self.trust())
            .certificate(Pem::text(chain), Pem::text(key))
            .spiffe([spiffe])
            .build()
            .expect("a client configuration")
    }

    /// One without a certificate.
    #[must_use]
    pub fn anonymous_client(&self) -> ClientTls {
        ClientTls::builder(self.trust())
            .server_name(NAME)
            .build()
            .expect("a client configuration")
    }

    /// What the server's certificate proves.
    #[must_use]
    pub fn server_identity(&self) -> Identity {
        identity(&self.server)
    }

    /// What the client's certificate proves.
    #[must_use]
    pub fn client_identity(&self) -> Identity {
        identity(&self.client)
    }
}

fn identity(issued: &Issued) -> Identity {
    let chain = Pem::text(&issued.chain).certificates().expect("a chain");
    tunnel_tls::peer_identity(&chain).expect("an identity")
}
