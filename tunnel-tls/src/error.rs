//! Why certificates, keys and trust could not be used.

use std::fmt;
use std::io;

use crate::date::Date;

/// One block of a PEM file, counted from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its position among all blocks of the file, the first being 1.
    pub number: usize,
    /// What stands between `-----BEGIN ` and `-----`.
    pub label: String,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} ({})", self.number, self.label)
    }
}

/// Why certificates, keys or trust could not be used, in words that name the file, the block and the fix.
///
/// `origin` is the path of the file, or says that the text was given in memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file is missing or may not be read.
    #[error("cannot read {origin}")]
    Read {
        /// The file.
        origin: String,
        /// What the operating system says.
        source: io::Error,
    },

    /// The file is larger than any sane PEM file; it was not read.
    #[error("{origin} is larger than {limit} bytes, which no PEM file of this kind should be")]
    TooLarge {
        /// The file.
        origin: String,
        /// The limit in bytes.
        limit: u64,
    },

    /// There is no text at all.
    #[error("{origin} is empty")]
    Empty {
        /// The file.
        origin: String,
    },

    /// The file holds bare DER.
    #[error("{origin} is DER, not PEM: convert it with `openssl {tool} -inform der -in {origin}`")]
    Der {
        /// The file.
        origin: String,
        /// The openssl subcommand that converts it.
        tool: &'static str,
    },

    /// There is text, and no PEM block in it.
    #[error("{origin} holds no PEM block: expected one that begins with -----BEGIN {expected}-----")]
    NoBlocks {
        /// The file.
        origin: String,
        /// The label of the block that was looked for.
        expected: &'static str,
    },

    /// A block that was opened is not closed.
    #[error("{block} of {origin} has no -----END {}----- line: the file is cut short", .block.label)]
    Unterminated {
        /// The file.
        origin: String,
        /// The block.
        block: Block,
    },

    /// The base64 of a block does not decode.
    #[error("{block} of {origin} is not valid base64: the file is damaged")]
    Base64 {
        /// The file.
        origin: String,
        /// The block.
        block: Block,
    },

    /// No block is of the kind that was looked for.
    #[error("{block} of {origin} is not a {expected}{hint}")]
    WrongKind {
        /// The file.
        origin: String,
        /// The first block that is of another kind.
        block: Block,
        /// The label of the block that was looked for.
        expected: &'static str,
        /// What probably happened, as the end of the sentence; may be empty.
        hint: &'static str,
    },

    /// The private key is protected by a passphrase, which nobody is there to type.
    #[error("{block} of {origin} is an encrypted private key: decrypt it with `openssl pkey -in {origin}`")]
    EncryptedKey {
        /// The file.
        origin: String,
        /// The block.
        block: Block,
    },

    /// More than one private key where one is expected.
    #[error("{block} of {origin} is a second private key: leave only the one that belongs to the certificate")]
    SeveralKeys {
        /// The file.
        origin: String,
        /// The second key.
        block: Block,
    },

    /// The private key's type or encoding is not supported.
    #[error(
        "the private key in {origin} cannot be used: give an ECDSA (P-256, P-384, P-521), Ed25519 or RSA (2048 to 8192 bits) key"
    )]
    UnusableKey {
        /// The file.
        origin: String,
        /// What the cryptographic library says.
        source: rustls::Error,
    },

    /// The block decodes, but what it holds is not an X.509 certificate.
    #[error("{block} of {origin} is not a valid X.509 certificate")]
    BadCertificate {
        /// The file.
        origin: String,
        /// The block.
        block: Block,
    },

    /// A CA certificate cannot be used as a trust anchor.
    #[error("certificate {number} of {origin} cannot be used as a CA")]
    BadCa {
        /// The file.
        origin: String,
        /// Its position among the certificates of the file, the first being 1.
        number: usize,
        /// What the verifier says.
        source: rustls::Error,
    },

    /// A certificate revocation list cannot be used.
    #[error("{origin} holds a certificate revocation list that cannot be used")]
    BadRevocationList {
        /// The files that were given.
        origin: String,
        /// What the verifier says.
        source: rustls::server::VerifierBuilderError,
    },

    /// Key and certificate do not belong together.
    #[error("the private key in {key} does not belong to the first certificate in {certificate}{hint}")]
    KeyMismatch {
        /// The file of the certificate.
        certificate: String,
        /// The file of the key.
        key: String,
        /// What probably happened, as the end of the sentence; may be empty.
        hint: String,
    },

    /// The certificate is no longer valid.
    #[error("the certificate in {origin} expired on {not_after}: renew it")]
    Expired {
        /// The file.
        origin: String,
        /// When it expired.
        not_after: Date,
    },

    /// The certificate is not valid yet.
    #[error("the certificate in {origin} is not valid before {not_before}: check this machine's clock")]
    NotYetValid {
        /// The file.
        origin: String,
        /// When it becomes valid.
        not_before: Date,
    },

    /// Nothing was given by which to verify the peer.
    #[error("no CA certificate was given to verify the peer with")]
    NoCa,

    /// A server name that is neither a DNS name nor an IP address.
    #[error("{name:?} is neither a DNS name nor an IP address, so no certificate can be checked against it")]
    ServerName {
        /// What was given.
        name: String,
    },

    /// What a server is to be is no SPIFFE ID.
    #[error("{id:?} is not a valid SPIFFE ID: {reason}")]
    SpiffeId {
        /// What was given.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The cryptographic library refused the configuration.
    #[error("the TLS library refused the configuration")]
    Library(#[source] rustls::Error),
}
