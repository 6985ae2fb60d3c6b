use crate::planted::{self, Bug};
use crate::types::{ClusterId, Digest, Epoch};

/// What kind of thing a signature is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SignedKind {
    /// A PREPARE or COMMIT range vote.
    Vote = 1,
    /// A VIEW-CHANGE.
    ViewChange = 2,
    /// A NEW-VIEW.
    NewView = 3,
    /// A CHECKPOINT vote.
    Checkpoint = 4,
    /// A bundle. Its epoch is 0, so that pending bundles survive an epoch switch.
    Bundle = 5,
    /// A REJOIN.
    Rejoin = 6,
    /// A replica's agreement to a genesis. Its epoch is 0.
    Genesis = 7,
    /// A peer's TLS key, vouched for by its replica key.
    TlsKey = 8,
    /// An organisation's approval of a change of members or parameters. Its epoch is 0: the change
    /// names its base.
    ConfigChange = 12,
    /// A new replica key's proof that somebody holds it. Its epoch is 0.
    Possession = 13,
    /// A learner's word for its state, before it is promoted.
    Attestation = 14,
    /// What a member says of itself before there is a network. Its epoch is 0, its network the seed of
    /// what its members were told.
    Hello = 15,
}

/// Length of every signed message.
pub const SIGNED_BYTES: usize = 32 + 32 + 8 + 1 + 32;

/// The bytes that are signed: context 32, cluster id 32, epoch 8, kind 1, digest of the body 32.
#[must_use]
pub fn signed_bytes(
    kind: SignedKind,
    cluster_id: &ClusterId,
    epoch: Epoch,
    body: &Digest,
) -> [u8; SIGNED_BYTES] {
    let mut out = [0; SIGNED_BYTES];
    let name = b"althing v1 signed";
    out[..name.len()].copy_from_slice(name);
    out[32..64].copy_from_slice(&cluster_id.0);
    if !planted::is(Bug::EpochUnsigned) {
        out[64..72].copy_from_slice(&epoch.0.to_le_bytes());
    }
    out[72] = kind as u8;
    out[73..].copy_from_slice(&body.0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_signed_names_its_kind_its_network_and_its_epoch() {
        let bytes = |kind, cluster, epoch, body| {
            signed_bytes(kind, &Digest([cluster; 32]), Epoch(epoch), &Digest([body; 32]))
        };
        let one = bytes(SignedKind::Vote, 1, 1, 1);
        let others = [
            bytes(SignedKind::ViewChange, 1, 1, 1),
            bytes(SignedKind::Vote, 2, 1, 1),
            bytes(SignedKind::Vote, 1, 2, 1),
            bytes(SignedKind::Vote, 1, 1, 2),
        ];
        assert!(others.iter().all(|other| *other != one));
    }
}
