//! Certificates.

use std::{sync::Arc, time::Duration};

use tunnel_tls::{CertName, ClientAuth, ClientTls, DevCa, Issued, Pem, Purpose, ServerTls, Trust};

/// A CA and what it signs.
pub(crate) struct Pki {
    _directory: tempfile::TempDir,
    pub(crate) ca: DevCa,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = DevCa::create_or_load(directory.path().join("ca")).unwrap();
        Self {
            _directory: directory,
            ca,
        }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::ca(Pem::file(self.ca.certificate_file()))
    }

    /// A server by the names of this machine.
    pub(crate) fn server(&self, client_auth: ClientAuth) -> Arc<ServerTls> {
        let names = ["localhost".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        let files = self.ca.ensure("gw", &names, Purpose::Server).unwrap();
        let builder = ServerTls::builder(Pem::file(files.chain), Pem::file(files.key));
        Arc::new(builder.client_auth(client_auth).build().unwrap())
    }

    /// A client's certificate.
    pub(crate) fn issue(&self, name: &str) -> Issued {
        let names: [CertName; 1] = [name.parse().unwrap()];
        let hour = Duration::from_secs(3600);
        self.ca.issue(&names, Purpose::Client, hour).unwrap()
    }

    /// A client that trusts this CA and shows this certificate, if it has one.
    pub(crate) fn client(&self, certificate: Option<Issued>) -> ClientTls {
        let mut builder = ClientTls::builder(self.trust());
        if let Some(issued) = certificate {
            builder = builder.certificate(Pem::text(issued.chain), Pem::text(issued.key));
        }
        builder.build().unwrap()
    }
}
