//! A change of members or parameters, with everything that authorises it in one op (protocol.md 20).

use crate::chain::network::{get_keys, get_text, get_texts, put_keys, put_text, put_texts};
use crate::chain::{Hello, Network, Ownership, Parameters};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{
    Context, Ed25519, PublicKey, SIGNED_BYTES, Scheme, Signature, SignedKind, hash, signed_bytes,
};
use crate::types::{ClusterId, Digest, Epoch, Height, Millis, OrgId, ReplicaId};

const VOTES_MAX: usize = 128;

/// A replica that is to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReplica {
    /// Whose: a name the network knows, or a new one with governance keys.
    pub organisation: String,
    /// Of a new organisation; empty for a known one.
    pub governance_keys: Vec<PublicKey>,
    /// Its own name, unique.
    pub name: String,
    /// Checks its votes and bundles.
    pub key: PublicKey,
    /// That key's, over itself: see [`possession_bytes`].
    pub possession: Signature,
    /// Where clients find it.
    pub client_urls: Vec<String>,
    /// Where peers find it: host:port, or URLs in a network of one owner (see [`crate::chain::peer_urls`]).
    pub peer_address: String,
    /// Never to be promoted.
    pub observer: bool,
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigAction {
    /// A learner or observer joins: it follows and does not vote.
    Add(NewReplica),
    /// A learner votes from now on; it has attested its state.
    Promote {
        /// Who.
        replica: ReplicaId,
    },
    /// A member leaves.
    Remove {
        /// Who.
        replica: ReplicaId,
        /// Whether fewer faults than before may be tolerated afterwards.
        accept_smaller_f: bool,
    },
    /// A learner takes a voter's place.
    Replace {
        /// The learner.
        promoted: ReplicaId,
        /// The voter.
        removed: ReplicaId,
    },
    /// A replica signs with another key from now on.
    RotateKey {
        /// Who.
        replica: ReplicaId,
        /// The new key.
        key: PublicKey,
        /// The new key's, over itself.
        possession: Signature,
    },
    /// Other parameters.
    Parameters(Parameters),
    /// One owner's alone: a member is expected at these peer URLs (etcd's MemberAdd).
    Reserve {
        /// Its peer URLs, joined by commas.
        peer_address: String,
        /// Whether it is to vote, once it has caught up.
        voting: bool,
    },
    /// One owner's alone: the member that was expected has shown its key, and follows from now on.
    Admit {
        /// Whose place it takes.
        replica: ReplicaId,
        /// What it says of itself, with the network for a seed.
        hello: Box<Hello>,
    },
    /// One owner's alone: a member is found elsewhere from now on (etcd's MemberUpdate).
    Move {
        /// Who.
        replica: ReplicaId,
        /// Its peer URLs, joined by commas.
        peer_address: String,
    },
}

/// A learner's word for its state, signed when its promotion is submitted through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// The epoch it was made in.
    pub epoch: Epoch,
    /// A height it executed.
    pub height: Height,
    /// Its root after that.
    pub exec_root: Digest,
    /// The learner's replica key's.
    pub signature: Signature,
}

/// An organisation's offline approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GovernanceVote {
    /// Whose.
    pub organisation: OrgId,
    /// One of its governance keys.
    pub key: PublicKey,
    /// That key's, over [`ConfigChange::signed_bytes`].
    pub signature: Signature,
}

/// A change of members or parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// `config_hash` of the epoch it changes: no change is good for two.
    pub base: Digest,
    /// Block time after which it is refused.
    pub not_after_ms: Millis,
    /// What changes.
    pub action: ConfigAction,
    /// The promoted learner's; not covered by the votes, so that it can be fresh.
    pub attestation: Option<Attestation>,
    /// In ascending order of organisation.
    pub votes: Vec<GovernanceVote>,
}

/// What the holder of a replica key signs to show that it holds it.
#[must_use]
pub fn possession_bytes(cluster_id: &ClusterId, key: &PublicKey) -> [u8; SIGNED_BYTES] {
    let body = hash(&Context::POSSESSION, &[&key.0]);
    signed_bytes(SignedKind::Possession, cluster_id, Epoch(0), &body)
}

impl Attestation {
    /// Attests `replica`'s state.
    #[must_use]
    pub fn sign(
        replica: ReplicaId,
        epoch: Epoch,
        (height, exec_root): (Height, Digest),
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> Self {
        let mut attestation = Self { epoch, height, exec_root, signature: Signature([0; 64]) };
        attestation.signature = scheme.sign(&attestation.signed_bytes(replica, cluster_id));
        attestation
    }

    fn signed_bytes(&self, replica: ReplicaId, cluster_id: &ClusterId) -> [u8; SIGNED_BYTES] {
        let mut writer = Writer::new();
        writer.u16(replica.0);
        writer.u64(self.height.0);
        writer.digest(&self.exec_root);
        let body = hash(&Context::ATTESTATION, &[writer.as_slice()]);
        signed_bytes(SignedKind::Attestation, cluster_id, self.epoch, &body)
    }
}

impl ConfigChange {
    /// What organisations agree to: all but the attestation.
    #[must_use]
    pub fn signed_bytes(&self, cluster_id: &ClusterId) -> [u8; SIGNED_BYTES] {
        let mut writer = Writer::new();
        writer.digest(&self.base);
        writer.u64(self.not_after_ms.0);
        self.action.encode(&mut writer);
        let body = hash(&Context::CONFIG_CHANGE, &[writer.as_slice()]);
        signed_bytes(SignedKind::ConfigChange, cluster_id, Epoch(0), &body)
    }

    /// Adds or replaces an organisation's vote.
    pub fn vote(&mut self, organisation: OrgId, key: &Ed25519, cluster_id: &ClusterId) {
        let signature = key.sign(&self.signed_bytes(cluster_id));
        let vote = GovernanceVote { organisation, key: key.public_key(), signature };
        self.add_vote(vote);
    }

    /// Adds or replaces an organisation's vote, unchecked.
    pub fn add_vote(&mut self, vote: GovernanceVote) {
        self.votes.retain(|other| other.organisation != vote.organisation);
        self.votes.push(vote);
        self.votes.sort_by_key(|vote| vote.organisation);
    }

    /// The learner that this change makes a voter.
    #[must_use]
    pub fn promoted(&self) -> Option<ReplicaId> {
        match self.action {
            ConfigAction::Promote { replica } => Some(replica),
            ConfigAction::Replace { promoted, .. } => Some(promoted),
            _ => None,
        }
    }

    /// Whether it counts only if an administrator asks for it: in a network of one owner all that does not
    /// follow from a member's having been added, or from its flags (protocol.md 22.8).
    #[must_use]
    pub fn needs_administrator(&self, network: &Network) -> bool {
        let promised = |replica| network.reserved.get(replica).is_some_and(|one| one.voting);
        let follows = match &self.action {
            ConfigAction::Admit { .. } | ConfigAction::Parameters(_) => true,
            ConfigAction::Promote { replica } => promised(replica),
            _ => false,
        };
        network.ownership == Ownership::One && !follows
    }

    /// Whether the replica keys that take part signed: possession of a new one, the promoted
    /// learner's attestation. What `apply` cannot ask; acceptance does (protocol.md 20.3).
    #[must_use]
    pub fn replica_signatures_hold(
        &self,
        network: &Network,
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> bool {
        let possessed = |key: &PublicKey, signature: &Signature| {
            scheme.verify(key, &possession_bytes(cluster_id, key), signature)
        };
        match &self.action {
            ConfigAction::Add(new) => possessed(&new.key, &new.possession),
            ConfigAction::RotateKey { key, possession, .. } => possessed(key, possession),
            // One owner's other members see that a learner has caught up, and take its word for it.
            ConfigAction::Promote { .. } if network.ownership == Ownership::One => true,
            ConfigAction::Promote { replica } | ConfigAction::Replace { promoted: replica, .. } => {
                let member = network.membership.member(*replica);
                member.zip(self.attestation).is_some_and(|(member, attestation)| {
                    let message = attestation.signed_bytes(*replica, cluster_id);
                    scheme.verify(&member.key, &message, &attestation.signature)
                })
            }
            ConfigAction::Remove { .. }
            | ConfigAction::Parameters(_)
            | ConfigAction::Reserve { .. }
            | ConfigAction::Admit { .. }
            | ConfigAction::Move { .. } => true,
        }
    }
}

fn put_signed_key(key: &PublicKey, signature: &Signature, writer: &mut Writer) {
    writer.raw(&key.0);
    writer.raw(&signature.0);
}

impl Encode for ConfigAction {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Add(new) => {
                writer.u8(1);
                put_text(&new.organisation, writer);
                put_keys(&new.governance_keys, writer);
                put_text(&new.name, writer);
                put_signed_key(&new.key, &new.possession, writer);
                put_texts(&new.client_urls, writer);
                put_text(&new.peer_address, writer);
                writer.bool(new.observer);
            }
            Self::Promote { replica } => {
                writer.u8(2);
                writer.u16(replica.0);
            }
            Self::Remove { replica, accept_smaller_f } => {
                writer.u8(3);
                writer.u16(replica.0);
                writer.bool(*accept_smaller_f);
            }
            Self::Replace { promoted, removed } => {
                writer.u8(4);
                writer.u16(promoted.0);
                writer.u16(removed.0);
            }
            Self::RotateKey { replica, key, possession } => {
                writer.u8(5);
                writer.u16(replica.0);
                put_signed_key(key, possession, writer);
            }
            Self::Parameters(parameters) => {
                writer.u8(6);
                parameters.encode(writer);
            }
            Self::Reserve { peer_address, voting } => {
                writer.u8(7);
                put_text(peer_address, writer);
                writer.bool(*voting);
            }
            Self::Admit { replica, hello } => {
                writer.u8(8);
                writer.u16(replica.0);
                hello.encode(writer);
            }
            Self::Move { replica, peer_address } => {
                writer.u8(9);
                writer.u16(replica.0);
                put_text(peer_address, writer);
            }
        }
    }
}

impl Decode for ConfigAction {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("change kind")? {
            1 => Self::Add(NewReplica {
                organisation: get_text(reader, "organisation name")?,
                governance_keys: get_keys(reader, "governance key")?,
                name: get_text(reader, "member name")?,
                key: PublicKey(reader.array("member key")?),
                possession: Signature(reader.array("possession")?),
                client_urls: get_texts(reader, "client URL")?,
                peer_address: get_text(reader, "peer address")?,
                observer: reader.bool("observer")?,
            }),
            2 => Self::Promote { replica: ReplicaId(reader.u16("promoted replica")?) },
            3 => Self::Remove {
                replica: ReplicaId(reader.u16("removed replica")?),
                accept_smaller_f: reader.bool("smaller f")?,
            },
            4 => Self::Replace {
                promoted: ReplicaId(reader.u16("promoted replica")?),
                removed: ReplicaId(reader.u16("removed replica")?),
            },
            5 => Self::RotateKey {
                replica: ReplicaId(reader.u16("rotated replica")?),
                key: PublicKey(reader.array("new key")?),
                possession: Signature(reader.array("possession")?),
            },
            6 => Self::Parameters(Parameters::decode(reader)?),
            7 => Self::Reserve {
                peer_address: get_text(reader, "reserved peer address")?,
                voting: reader.bool("reserved vote")?,
            },
            8 => Self::Admit {
                replica: ReplicaId(reader.u16("admitted replica")?),
                hello: Box::new(Hello::decode(reader)?),
            },
            9 => Self::Move {
                replica: ReplicaId(reader.u16("moved replica")?),
                peer_address: get_text(reader, "new peer address")?,
            },
            _ => return Err(DecodeError::Invalid("change kind")),
        })
    }
}

impl Encode for ConfigChange {
    fn encode(&self, writer: &mut Writer) {
        writer.digest(&self.base);
        writer.u64(self.not_after_ms.0);
        self.action.encode(writer);
        writer.bool(self.attestation.is_some());
        if let Some(attestation) = &self.attestation {
            writer.u64(attestation.epoch.0);
            writer.u64(attestation.height.0);
            writer.digest(&attestation.exec_root);
            writer.raw(&attestation.signature.0);
        }
        writer.length(self.votes.len());
        for vote in &self.votes {
            writer.u16(vote.organisation.0);
            put_signed_key(&vote.key, &vote.signature, writer);
        }
    }
}

impl Decode for ConfigChange {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let base = reader.digest("change base")?;
        let not_after_ms = Millis(reader.u64("change end")?);
        let action = ConfigAction::decode(reader)?;
        let attestation = if reader.bool("attestation tag")? {
            Some(Attestation {
                epoch: Epoch(reader.u64("attestation epoch")?),
                height: Height(reader.u64("attestation height")?),
                exec_root: reader.digest("attestation root")?,
                signature: Signature(reader.array("attestation signature")?),
            })
        } else {
            None
        };
        let mut votes = Vec::new();
        for _ in 0..reader.length(VOTES_MAX, "change votes")? {
            votes.push(GovernanceVote {
                organisation: OrgId(reader.u16("vote organisation")?),
                key: PublicKey(reader.array("vote key")?),
                signature: Signature(reader.array("vote signature")?),
            });
        }
        Ok(Self { base, not_after_ms, action, attestation, votes })
    }
}
