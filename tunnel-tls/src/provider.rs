//! The one source of cryptography.

use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};

/// Key exchange groups, most wanted first. The hybrid group protects recorded traffic from a later quantum
/// computer; the others are for peers that lack it. The order is written out because the library's own
/// depends on a cargo feature.
static GROUPS: [&dyn SupportedKxGroup; 4] = [
    kx_group::X25519MLKEM768,
    kx_group::X25519,
    kx_group::SECP256R1,
    kx_group::SECP384R1,
];

/// The provider that every configuration of this crate uses: AWS-LC, with X25519MLKEM768 preferred.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            kx_groups: GROUPS.to_vec(),
            ..aws_lc_rs::default_provider()
        })
    }))
}

/// Makes [`provider`] the default of the process, for libraries that ask for one.
///
/// Programs call it first thing in `main`. A default that is already installed stays.
pub fn install_provider() {
    // An error means that a default exists already, which is what the caller wants to be true.
    let _ = CryptoProvider::clone(&provider()).install_default();
}
