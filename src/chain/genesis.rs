use crate::chain::{Member, Membership, Parameters};
use crate::codec::{Encode, Writer};
use crate::crypto::{
    Context, PublicKey, Signature, SignedKind, hash, signed_bytes, verify_ed25519,
};
use crate::types::{ClusterId, Digest, Epoch, Millis, OrgId, ReplicaId};

/// Who the replicas belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ownership {
    /// One owner: etcd's own rules.
    One = 1,
    /// Organisations that distrust each other, governed.
    Many = 2,
}

/// A replica as the genesis admits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenesisMember {
    /// Its position, from 0.
    pub id: ReplicaId,
    /// Whose it is; replicas of one organisation share it.
    pub organisation: OrgId,
    /// The organisation's name, also the replica's while it has one.
    pub name: String,
    /// Checks its votes and bundles.
    pub key: PublicKey,
    /// The organisation's offline keys; any one of them acts for it.
    pub governance_keys: Vec<PublicKey>,
    /// Where clients find it.
    pub client_urls: Vec<String>,
    /// Where peers find it: host:port, or URLs in a network of one owner (see [`crate::chain::peer_urls`]).
    pub peer_address: String,
}

/// What a network starts from; its hash is the cluster id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// One owner or many.
    pub ownership: Ownership,
    /// Whether `althing demo` made it: only then may a replica be told to lie.
    pub demo: bool,
    /// Random; of [`Ownership::One`] the seed of what the members were told, so that its genesis is a
    /// function of flags and keys.
    pub salt: [u8; 32],
    /// Unix time it was assembled, a lower bound of the first block's; 0 for [`Ownership::One`].
    pub created_ms: Millis,
    /// In ascending order of id, from 0 without a gap.
    pub members: Vec<GenesisMember>,
    /// In force from the first block.
    pub parameters: Parameters,
    /// Of the etcd snapshot that the first state is read from; none for an empty one.
    pub initial: Option<Digest>,
}

impl Genesis {
    /// The network's identity.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        hash(&Context::GENESIS, &[&self.to_bytes()])
    }

    /// Members and parameters of epoch 0.
    #[must_use]
    pub fn membership(&self) -> Membership {
        let members = self
            .members
            .iter()
            .map(|member| Member {
                id: member.id,
                organisation: member.organisation,
                key: member.key,
                voting: true,
            })
            .collect();
        Membership {
            epoch: Epoch(0),
            members,
            parameters: self.parameters.clone(),
            first_primary: 0,
        }
    }

    /// What a member signs to agree to this genesis.
    #[must_use]
    pub fn signed_bytes(&self) -> [u8; crate::crypto::SIGNED_BYTES] {
        let id = self.cluster_id();
        signed_bytes(SignedKind::Genesis, &id, Epoch(0), &id)
    }

    /// Whether this member agreed.
    #[must_use]
    pub fn signed_by(&self, member: &GenesisMember, signature: &Signature) -> bool {
        verify_ed25519(&member.key, &self.signed_bytes(), signature)
    }
}

impl Encode for Genesis {
    fn encode(&self, writer: &mut Writer) {
        writer.u16(if self.initial.is_some() { 2 } else { 1 });
        writer.u8(self.ownership as u8);
        writer.bool(self.demo);
        writer.raw(&self.salt);
        writer.u64(self.created_ms.0);
        writer.length(self.members.len());
        for member in &self.members {
            writer.u16(member.id.0);
            writer.u16(member.organisation.0);
            writer.bytes(member.name.as_bytes());
            writer.raw(&member.key.0);
            writer.length(member.governance_keys.len());
            member.governance_keys.iter().for_each(|key| writer.raw(&key.0));
            writer.length(member.client_urls.len());
            member.client_urls.iter().for_each(|url| writer.bytes(url.as_bytes()));
            writer.bytes(member.peer_address.as_bytes());
        }
        self.parameters.encode(writer);
        if let Some(digest) = &self.initial {
            writer.digest(digest);
        }
    }
}
