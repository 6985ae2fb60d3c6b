use core::fmt;

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::crypto::{
    Context, PublicKey, Scheme, Signature, SignedKind, hash, signed_bytes, verify_ed25519,
};
use crate::types::{ClusterId, Digest, Epoch, Millis, ReplicaId};

/// Arc of the extension: under 2.25, where anyone may draw a number.
pub(super) const EXTENSION: &[u64] = &[2, 25, 5_120_938_476_201_773];
const VERSION: u8 = 1;
const BYTES: usize = 1 + 2 + 8 + 64;

/// A replica key's word for a TLS key: who holds it and until when. It travels in the certificate
/// that the key signed itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Voucher {
    pub replica: ReplicaId,
    /// Unix time from which its holder shows another key.
    pub not_after_ms: Millis,
    pub signature: Signature,
}

/// Why a certificate does not make its holder a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VoucherError {
    /// Not a certificate, or without a well-formed voucher.
    Malformed,
    /// Certificates beside the one that is looked at.
    Chain,
    NotAMember(ReplicaId),
    /// The dialled address answers as somebody else.
    Unexpected {
        expected: ReplicaId,
        found: ReplicaId,
    },
    /// Not signed by the member's key, or for another network.
    Signature(ReplicaId),
}

impl fmt::Display for VoucherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => write!(f, "its certificate holds no voucher of a replica key"),
            Self::Chain => write!(f, "it sent a chain of certificates where one is expected"),
            Self::NotAMember(id) => write!(f, "it says it is replica {id}, which is no member"),
            Self::Unexpected { expected, found } => {
                write!(f, "it is replica {found}, but this address belongs to replica {expected}")
            }
            Self::Signature(id) => write!(
                f,
                "its voucher is not signed by the key of replica {id} for this network; does it \
                 use the same genesis, and the key named there?"
            ),
        }
    }
}

impl From<VoucherError> for rustls::Error {
    fn from(error: VoucherError) -> Self {
        Self::General(error.to_string())
    }
}

impl Voucher {
    pub fn sign(
        replica: ReplicaId,
        not_after_ms: Millis,
        (cluster_id, scheme): (&ClusterId, &dyn Scheme),
        tls_spki: &[u8],
    ) -> Self {
        let body = body(replica, not_after_ms, tls_spki);
        let message = signed_bytes(SignedKind::TlsKey, cluster_id, Epoch(0), &body);
        Self { replica, not_after_ms, signature: scheme.sign(&message) }
    }

    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.replica.0.to_le_bytes());
        bytes.extend_from_slice(&self.not_after_ms.0.to_le_bytes());
        bytes.extend_from_slice(&self.signature.0);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (replica, rest) = rest.split_first_chunk::<2>()?;
        let (not_after, rest) = rest.split_first_chunk::<8>()?;
        let signature: [u8; 64] = rest.try_into().ok()?;
        (*version == VERSION).then_some(Self {
            replica: ReplicaId(u16::from_le_bytes(*replica)),
            not_after_ms: Millis(u64::from_le_bytes(*not_after)),
            signature: Signature(signature),
        })
    }

    pub fn verify(
        &self,
        cluster_id: &ClusterId,
        key: &PublicKey,
        tls_spki: &[u8],
    ) -> Result<(), VoucherError> {
        let body = body(self.replica, self.not_after_ms, tls_spki);
        let message = signed_bytes(SignedKind::TlsKey, cluster_id, Epoch(0), &body);
        if !verify_ed25519(key, &message, &self.signature) {
            return Err(VoucherError::Signature(self.replica));
        }
        Ok(())
    }
}

/// The network is in the signed bytes (protocol.md 2), so it is not repeated here.
fn body(replica: ReplicaId, not_after_ms: Millis, tls_spki: &[u8]) -> Digest {
    let (id, until) = (replica.0.to_le_bytes(), not_after_ms.0.to_le_bytes());
    hash(&Context::TLS_KEY, &[&id, &until, tls_spki])
}

/// The voucher in a certificate, and the key it should be about.
pub(super) fn open(certificate: &[u8]) -> Result<(Voucher, Vec<u8>), VoucherError> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| VoucherError::Malformed)?;
    if !rest.is_empty() {
        return Err(VoucherError::Malformed);
    }
    let oid =
        x509_parser::der_parser::Oid::from(EXTENSION).expect("the extension's arc is well-formed");
    let extension =
        parsed.get_extension_unique(&oid).ok().flatten().ok_or(VoucherError::Malformed)?;
    let voucher = Voucher::from_bytes(extension.value).ok_or(VoucherError::Malformed)?;
    Ok((voucher, parsed.public_key().raw.to_vec()))
}
