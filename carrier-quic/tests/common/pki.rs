//! Certificates for the tests.

use std::time::Duration;

use tunnel_tls::{CertName, ClientAuth, ClientTls, DevCa, Issued, Pem, Purpose, ServerTls, Trust};

/// A CA of its own, in a directory that is removed with it.
pub(crate) struct Pki {
    ca: DevCa,
    _dir: tempfile::TempDir,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = DevCa::create_or_load(dir.path().join("ca")).expect("a CA");
        Self { ca, _dir: dir }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::ca(self.ca.certificate_file())
    }

    /// A server `server.test` that requires client certificates of this CA.
    pub(crate) fn server(&self) -> ServerTls {
        self.server_with(ClientAuth::Required(self.trust()))
    }

    pub(crate) fn server_with(&self, clients: ClientAuth) -> ServerTls {
        let issued = self.issue("server.test", Purpose::Server);
        ServerTls::builder(Pem::text(issued.chain), Pem::text(issued.key))
            .client_auth(clients)
            .build()
            .expect("a server configuration")
    }

    /// A client `node-7.test` that trusts this CA and names its server `server.test`.
    pub(crate) fn client(&self) -> ClientTls {
        let issued = self.issue("node-7.test", Purpose::Client);
        ClientTls::builder(self.trust())
            .certificate(Pem::text(issued.chain), Pem::text(issued.key))
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

    /// One with a certificate of another CA.
    pub(crate) fn stranger(&self, other: &Self) -> ClientTls {
        let issued = other.issue("node-7.test", Purpose::Client);
        ClientTls::builder(self.trust())
            .certificate(Pem::text(issued.chain), Pem::text(issued.key))
            .server_name("server.test")
            .build()
            .expect("a client configuration")
    }

    fn issue(&self, name: &str, purpose: Purpose) -> Issued {
        self.ca
            .issue(&[CertName::Dns(name.to_owned())], purpose, DAY)
            .expect("a certificate")
    }
}
