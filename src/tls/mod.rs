//! Every TLS object of the process, for peers and for clients.
//!
//! Between replicas nobody trusts a certificate authority: a peer's TLS key is pinned by a voucher
//! that its replica key signed ([`PeerTls`]). Towards clients the files that the operator names
//! decide ([`ListenerTls`]); one object serves gRPC, HTTP and metrics, so that no listener is weaker
//! than another. They also decide where members of one owner find each other, before any key is known
//! ([`ExchangeTls`]). aws-lc-rs is the only provider of cryptography.

mod clients;
mod exchange;
mod facts;
mod files;
mod listener;
mod peer;
mod verifier;
mod voucher;

pub use exchange::{ExchangeFiles, ExchangeTls};
pub use facts::{CertificateFacts, Role};
pub use files::TlsFileError;
pub use listener::{
    ClientAuthentication, ClientFiles, ClientIdentity, ListenerFiles, ListenerTls, Versions,
    client_config,
};
pub use peer::{PeerTable, PeerTls, PeerTlsError};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The one provider, with rustls' default suites.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Milliseconds of Unix time: certificates know no other clock.
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}
