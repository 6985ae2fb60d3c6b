use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use super::facts::{CertificateFacts, facts};
use super::verifier::PeerVerifier;
use super::voucher::{self, EXTENSION, Voucher};
use super::{provider, unix_ms};
use crate::crypto::{PublicKey, Scheme};
use crate::types::{ClusterId, Millis, ReplicaId};

/// Spoken on peer links and nowhere else, so that no other protocol's bytes are ever taken for ours.
const PROTOCOL: &[u8] = b"althing/1";
/// How long a TLS key is vouched for. A process makes a new one at half of it; one that is shown later still
/// counts, for the replica key that vouches is what is pinned.
const LIFETIME_MS: u64 = 30 * 24 * 3_600_000;

/// The members' replica keys, shared by every link; a membership change replaces it whole.
#[derive(Clone)]
pub struct PeerTable(Arc<ArcSwap<BTreeMap<ReplicaId, PublicKey>>>);

impl PeerTable {
    /// A table of these members.
    #[must_use]
    pub fn new(members: BTreeMap<ReplicaId, PublicKey>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(members)))
    }

    /// Other members from now on; handshakes already done are not undone.
    pub fn replace(&self, members: BTreeMap<ReplicaId, PublicKey>) {
        self.0.store(Arc::new(members));
    }

    /// A member's key.
    #[must_use]
    pub fn key(&self, id: ReplicaId) -> Option<PublicKey> {
        self.0.load().get(&id).copied()
    }
}

/// Why a TLS key for peer links could not be made.
#[derive(Debug)]
pub enum PeerTlsError {
    /// Making the key or its certificate failed.
    Certificate(rcgen::Error),
    /// rustls refuses the result.
    Tls(rustls::Error),
}

impl fmt::Display for PeerTlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(error) => write!(f, "no TLS key for peers could be made: {error}"),
            Self::Tls(error) => write!(f, "the TLS key for peers cannot be used: {error}"),
        }
    }
}

impl std::error::Error for PeerTlsError {}

impl From<rcgen::Error> for PeerTlsError {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error)
    }
}

impl From<rustls::Error> for PeerTlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

/// This replica's side of every peer link: TLS 1.3, both sides show a key that a member's replica
/// key vouches for. No certificate authority, no resumption, no early data (faults.md 5.1).
pub struct PeerTls {
    own: ReplicaId,
    cluster_id: ClusterId,
    scheme: Arc<dyn Scheme>,
    table: PeerTable,
    issued: ArcSwap<Issued>,
}

/// A TLS key of this process with its certificate.
struct Issued {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    renew_from_ms: u64,
    server: Arc<ServerConfig>,
}

impl PeerTls {
    /// Makes a TLS key, known to this process alone, and has `scheme`, the replica's key, vouch for
    /// it. The table holds this replica too.
    ///
    /// # Errors
    /// The random source fails.
    pub fn new(
        own: ReplicaId,
        cluster_id: ClusterId,
        scheme: Arc<dyn Scheme>,
        table: PeerTable,
    ) -> Result<Self, PeerTlsError> {
        let verifier = verifier((own, None), cluster_id, &table);
        let issued = issue((own, &cluster_id), &*scheme, verifier)?;
        Ok(Self { own, cluster_id, scheme, table, issued: ArcSwap::from_pointee(issued) })
    }

    /// Who this replica is.
    #[must_use]
    pub fn own(&self) -> ReplicaId {
        self.own
    }

    /// The certificate that peers are shown.
    #[must_use]
    pub fn facts(&self) -> Option<CertificateFacts> {
        let issued = self.current();
        let mut facts = facts(None, &issued.certificate)?;
        // The voucher's time counts; the certificate around it names none.
        let until_ms = issued.renew_from_ms.saturating_add(LIFETIME_MS / 2);
        facts.not_after_seconds = i64::try_from(until_ms / 1000).unwrap_or(i64::MAX);
        Some(facts)
    }

    /// For accepted connections; any member but this replica itself may come.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current().server)
    }

    /// For a connection to `expected`; whoever else answers is refused.
    ///
    /// # Errors
    /// rustls refuses the key.
    pub fn connector(
        &self,
        expected: ReplicaId,
    ) -> Result<tokio_rustls::TlsConnector, PeerTlsError> {
        let issued = self.current();
        let verifier = verifier((self.own, Some(expected)), self.cluster_id, &self.table);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(vec![issued.certificate.clone()], issued.private_key())?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Arc::new(config).into())
    }

    /// Who stands at the other end of an accepted, finished handshake: a member, or nobody.
    #[must_use]
    pub fn peer_of(&self, connection: &rustls::ServerConnection) -> Option<ReplicaId> {
        if connection.alpn_protocol() != Some(PROTOCOL) {
            return None;
        }
        let [certificate] = connection.peer_certificates()? else { return None };
        let (voucher, _) = voucher::open(certificate).ok()?;
        self.table.key(voucher.replica).map(|_| voucher.replica)
    }

    /// The key in use, replaced when half of its time is over. A failed replacement keeps the old
    /// one, which has as much time left again.
    fn current(&self) -> Arc<Issued> {
        let issued = self.issued.load_full();
        if unix_ms() < issued.renew_from_ms {
            return issued;
        }
        let verifier = verifier((self.own, None), self.cluster_id, &self.table);
        match issue((self.own, &self.cluster_id), &*self.scheme, verifier) {
            Ok(renewed) => self.issued.store(Arc::new(renewed)),
            Err(error) => tracing::warn!(event = "peer_tls_renewal_failed", %error),
        }
        self.issued.load_full()
    }
}

impl Issued {
    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

fn verifier(
    (own, expected): (ReplicaId, Option<ReplicaId>),
    cluster_id: ClusterId,
    table: &PeerTable,
) -> Arc<PeerVerifier> {
    Arc::new(PeerVerifier { cluster_id, own, expected, table: table.clone(), provider: provider() })
}

fn issue(
    of: (ReplicaId, &ClusterId),
    scheme: &dyn Scheme,
    verifier: Arc<PeerVerifier>,
) -> Result<Issued, PeerTlsError> {
    issue_at(unix_ms(), of, scheme, verifier)
}

fn issue_at(
    now_ms: u64,
    (own, cluster_id): (ReplicaId, &ClusterId),
    scheme: &dyn Scheme,
    verifier: Arc<PeerVerifier>,
) -> Result<Issued, PeerTlsError> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    let until = Millis(now_ms.saturating_add(LIFETIME_MS));
    let voucher = Voucher::sign(own, until, (cluster_id, scheme), &spki);
    let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, format!("althing replica {own}"));
    parameters
        .custom_extensions
        .push(rcgen::CustomExtension::from_oid_content(EXTENSION, voucher.to_bytes()));
    let certificate = parameters.self_signed(&key)?.der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key.clone_key()))?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    let renew_from_ms = now_ms.saturating_add(LIFETIME_MS / 2);
    Ok(Issued { certificate, key, renew_from_ms, server: Arc::new(server) })
}

#[cfg(test)]
mod tests;
