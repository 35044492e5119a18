//! The certificate of a proxy that ends TLS.

use std::fs;

use tempfile::TempDir;
use tunnel_tls::{ClientTls, DevCa, IssuedFiles, Pem, Purpose, Trust};

/// The name that the certificate is for.
const NAME: &str = "gw.example";

/// A certificate for `gw.example` in files, of a CA of its own.
#[derive(Debug)]
pub struct Certificate {
    directory: TempDir,
    ca: DevCa,
    files: IssuedFiles,
}

impl Certificate {
    /// Makes one.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = DevCa::create_or_load(directory.path().join("ca")).expect("a CA");
        let names = [NAME.parse().expect("a name")];
        let files = ca.ensure("gw", &names, Purpose::Server).expect("a certificate");
        Self { directory, ca, files }
    }

    /// The file with the chain.
    #[must_use]
    pub fn chain(&self) -> &str {
        self.files.chain.to_str().expect("text")
    }

    /// The file with the key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.files.key.to_str().expect("text")
    }

    /// A file with both, as HAProxy wants them.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn both(&self) -> String {
        let file = self.directory.path().join("gw.pem");
        let parts = [self.chain(), self.key()].map(|file| fs::read_to_string(file).expect("a file"));
        fs::write(&file, parts.concat()).expect("a file");
        file.display().to_string()
    }

    /// What clients have that trust it, whatever address they reach it by.
    #[must_use]
    pub fn client(&self) -> ClientTls {
        let trust = Trust::ca(Pem::file(self.ca.certificate_file()));
        let client = ClientTls::builder(trust).server_name(NAME).build();
        client.expect("a configuration")
    }
}

impl Default for Certificate {
    fn default() -> Self {
        Self::new()
    }
}
