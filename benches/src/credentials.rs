//! Certificates for both processes.

use std::path::{Path, PathBuf};

use tunnel_tls::{CertName, ClientAuth, ClientTls, DevCa, Pem, Purpose, ServerTls, Trust};

/// A CA in a directory, with a certificate for each end.
#[derive(Debug)]
pub struct Credentials {
    ca: PathBuf,
    server: (PathBuf, PathBuf),
    agent: (PathBuf, PathBuf),
}

impl Credentials {
    /// Those in a directory; makes what is missing.
    pub fn in_dir(dir: &Path) -> anyhow::Result<Self> {
        let ca = DevCa::create_or_load(dir)?;
        let ensure = |stem: &str, purpose| {
            let names = [CertName::Dns(format!("{stem}.test"))];
            ca.ensure(stem, &names, purpose).map(|files| (files.chain, files.key))
        };
        Ok(Self {
            ca: ca.certificate_file(),
            server: ensure("server", Purpose::Server)?,
            agent: ensure("agent", Purpose::Client)?,
        })
    }

    /// The CA's certificate.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca
    }

    /// Certificate and key of the server.
    #[must_use]
    pub fn server_files(&self) -> (&Path, &Path) {
        (&self.server.0, &self.server.1)
    }

    /// Certificate and key of the agent.
    #[must_use]
    pub fn agent_files(&self) -> (&Path, &Path) {
        (&self.agent.0, &self.agent.1)
    }

    /// The server's side; both ends show certificates, as in production.
    pub fn server(&self) -> anyhow::Result<ServerTls> {
        let (chain, key) = &self.server;
        let trust = Trust::ca(Pem::file(&self.ca));
        Ok(ServerTls::builder(Pem::file(chain), Pem::file(key))
            .client_auth(ClientAuth::Required(trust))
            .build()?)
    }

    /// The agent's side.
    pub fn agent(&self) -> anyhow::Result<ClientTls> {
        let (chain, key) = &self.agent;
        Ok(ClientTls::builder(Trust::ca(Pem::file(&self.ca)))
            .certificate(Pem::file(chain), Pem::file(key))
            .server_name("server.test")
            .build()?)
    }
}
