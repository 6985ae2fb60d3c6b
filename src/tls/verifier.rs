use core::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme};

use super::peer::PeerTable;
use super::voucher::{self, VoucherError};
use crate::types::{ClusterId, Millis, ReplicaId};

/// Pins the other side of a peer link: its certificate counts for nothing but the voucher inside.
/// That the peer holds the vouched key is what the handshake's own signature shows.
pub(super) struct PeerVerifier {
    pub cluster_id: ClusterId,
    pub own: ReplicaId,
    /// Whom the dialler wants; the acceptor takes any member but itself.
    pub expected: Option<ReplicaId>,
    pub table: PeerTable,
    pub provider: Arc<CryptoProvider>,
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerVerifier(expected {:?})", self.expected)
    }
}

impl PeerVerifier {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VoucherError> {
        if !others.is_empty() {
            return Err(VoucherError::Chain);
        }
        let (voucher, spki) = voucher::open(certificate)?;
        let found = voucher.replica;
        if let Some(expected) = self.expected.filter(|expected| *expected != found) {
            return Err(VoucherError::Unexpected { expected, found });
        }
        let key = self.table.key(found).filter(|_| found != self.own);
        let key = key.ok_or(VoucherError::NotAMember(found))?;
        voucher.verify(&self.cluster_id, &key, &spki)?;
        // Said, and no reason to refuse: the pinned key vouches, and no clock stops ordering (trust.md 3.5).
        // A holder shows no such key but by a clock that is wrong, its own or this one.
        if Millis(now.as_secs().saturating_mul(1000)) >= voucher.not_after_ms {
            tracing::warn!(
                event = "peer_voucher_expired",
                peer = %found,
                "the TLS key of this peer is past its time by this clock; compare the clocks of both \
                 machines"
            );
        }
        Ok(())
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Peer links speak TLS 1.3 only, so this is never asked; if it were, the answer is no.
fn refuse_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedCipherSuite))
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
