//! Certificates for the tests.

use std::time::Duration;

use tunnel_core::Identity;
use tunnel_tls::{CertName, ClientAuth, ClientTls, DevCa, Issued, Pem, Purpose, ServerTls, Trust};

/// A CA of its own, in a directory that is removed with it.
pub(crate) struct Pki {
    ca: DevCa,
    server: Issued,
    client: Issued,
    _dir: tempfile::TempDir,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = DevCa::create_or_load(dir.path().join("ca")).expect("a CA");
        let issue = |name: &str, purpose| {
            let names = [CertName::Dns(name.to_owned())];
            ca.issue(&names, purpose, DAY).expect("a certificate")
        };
        Self {
            server: issue("server.test", Purpose::Server),
            client: issue("node-7.test", Purpose::Client),
            ca,
            _dir: dir,
        }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::ca(self.ca.certificate_file())
    }

    /// A server `server.test` that requires client certificates of this CA.
    pub(crate) fn server(&self) -> ServerTls {
        self.server_with(ClientAuth::Required(self.trust()))
    }

    /// One that requires client certificates of another CA than its own.
    pub(crate) fn server_trusting(&self, other: &Self) -> ServerTls {
        self.server_with(ClientAuth::Required(other.trust()))
    }

    pub(crate) fn server_with(&self, clients: ClientAuth) -> ServerTls {
        let Issued { chain, key, .. } = &self.server;
        ServerTls::builder(Pem::text(chain), Pem::text(key))
            .client_auth(clients)
            .build()
            .expect("a server configuration")
    }

    /// A client `node-7.test` that trusts this CA and names its server `server.test`.
    pub(crate) fn client(&self) -> ClientTls {
        self.stranger(self)
    }

    /// One with a certificate of another CA.
    pub(crate) fn stranger(&self, other: &Self) -> ClientTls {
        let Issued { chain, key, .. } = &other.client;
        ClientTls::builder(self.trust())
            .certificate(Pem::text(chain), Pem::text(key))
            .server_name("server.test")
            .build()
            .expect("a client configuration")
    }

    /// One without a certificate.
    pub(crate) fn anonymous_client(&self) -> ClientTls {
        ClientTls::builder(self.trust())
            .server_name("server.test")
            .build()
            .expect("a client configuration")
    }

    pub(crate) fn server_identity(&self) -> Identity {
        identity(&self.server)
    }

    pub(crate) fn client_identity(&self) -> Identity {
        identity(&self.client)
    }
}

fn identity(issued: &Issued) -> Identity {
    let chain = Pem::text(&issued.chain).certificates().expect("a chain");
    tunnel_tls::peer_identity(&chain).expect("an identity")
}
