//! Certificates in files.

use std::{fs, future::Future, path::PathBuf, time::Duration};

use tunnel_tls::{CertName, ClientTls, DevCa, Pem, Purpose, Trust};

/// The name of the agent in the tests, and in its certificate.
pub(crate) const AGENT: &str = "node-7";

/// Names of a server on this machine.
const SERVER: [&str; 2] = ["localhost", "127.0.0.1"];

/// A CA and what it signs, in a directory of its own.
pub(crate) struct Pki {
    directory: tempfile::TempDir,
    ca: DevCa,
    /// The CA's certificate.
    pub(crate) trust: PathBuf,
}

/// A certificate chain and its key.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = DevCa::create_or_load(directory.path().join("ca")).unwrap();
        Self {
            trust: ca.certificate_file(),
            directory,
            ca,
        }
    }

    /// A file in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn server(&self) -> Pair {
        self.issue("server", &SERVER, Purpose::Server)
    }

    pub(crate) fn agent(&self) -> Pair {
        self.issue("agent", &[AGENT], Purpose::Client)
    }

    pub(crate) fn client(&self, name: &str) -> Pair {
        self.issue(name, &[name], Purpose::Client)
    }

    /// A server by this name.
    pub(crate) fn named_server(&self, name: &str) -> Pair {
        self.issue(name, &[name], Purpose::Server)
    }

    /// A member of a mesh that is connected to, by its SPIFFE ID alone.
    pub(crate) fn member_server(&self, stem: &str, id: &str) -> Pair {
        self.issue(stem, &[id], Purpose::Server)
    }

    /// One that connects.
    pub(crate) fn member_client(&self, stem: &str, id: &str) -> Pair {
        self.issue(stem, &[id], Purpose::Client)
    }

    /// A server's certificate that is about to expire, and when it has.
    pub(crate) fn expiring_server(&self) -> (Pair, impl Future<Output = ()>) {
        self.expiring("expiring-server", &SERVER, Purpose::Server)
    }

    /// The same of an agent.
    pub(crate) fn expiring_agent(&self) -> (Pair, impl Future<Output = ()>) {
        self.expiring("expiring-agent", &[AGENT], Purpose::Client)
    }

    /// What a client with this certificate, if any, has for servers of this CA.
    pub(crate) fn client_tls(&self, pair: Option<&Pair>) -> ClientTls {
        let mut tls = ClientTls::builder(Trust::ca(Pem::file(&self.trust)));
        if let Some(pair) = pair {
            tls = tls.certificate(Pem::file(&pair.cert), Pem::file(&pair.key));
        }
        tls.build().unwrap()
    }

    fn issue(&self, stem: &str, names: &[&str], purpose: Purpose) -> Pair {
        self.valid_for(stem, names, purpose, Duration::from_secs(3600))
    }

    /// Long enough for a program to start with it. The programs go by the clock of the system, so the test has to.
    fn expiring(&self, stem: &str, names: &[&str], purpose: Purpose) -> (Pair, impl Future<Output = ()> + use<>) {
        let validity = Duration::from_secs(4);
        let pair = self.valid_for(stem, names, purpose, validity);
        // Certificates count in whole seconds.
        (pair, tokio::time::sleep(validity + Duration::from_secs(1)))
    }

    fn valid_for(&self, stem: &str, names: &[&str], purpose: Purpose, validity: Duration) -> Pair {
        let names: Vec<CertName> = names.iter().map(|name| name.parse().unwrap()).collect();
        let issued = self.ca.issue(&names, purpose, validity).unwrap();
        self.pair(stem, &issued.chain, &issued.key)
    }

    fn pair(&self, stem: &str, cert: &str, key: &str) -> Pair {
        Pair {
            cert: self.write(&format!("{stem}.crt"), cert),
            key: self.write(&format!("{stem}.key"), key),
        }
    }
}
