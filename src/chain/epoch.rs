use std::ops::RangeInclusive;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, PublicKey, hash};
use crate::types::{Digest, Epoch, OrgId, Quorum, ReplicaId, View};

const MEMBERS_MAX: usize = 128;

/// A replica as the protocol sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: ReplicaId,
    /// Whose.
    pub organisation: OrgId,
    /// Checks its votes and bundles.
    pub key: PublicKey,
    /// Whether it votes; else it is a learner or observer.
    pub voting: bool,
}

/// What must be equal on all replicas, fixed within an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// W: pipeline window and lag of the root in headers.
    pub window: u32,
    /// D: how far ahead of a follower's clock a fresh proposal's time may be.
    pub time_bound_ms: u64,
    /// Base of the view-change timeout.
    pub view_timeout_ms: u64,
    /// etcd's `--max-request-bytes`.
    pub request_bytes_max: u32,
    /// etcd's `--max-txn-ops`.
    pub txn_ops_max: u32,
    /// etcd's `--quota-backend-bytes`, in logical bytes.
    pub quota_bytes: u64,
    /// M: a checkpoint after this many bytes of log, or
    pub checkpoint_log_bytes: u64,
    /// k: times the state's bytes, whichever is more.
    pub checkpoint_state_factor: u32,
    /// A primary that led so many blocks hands over; besides, one leads at most ten minutes.
    pub tenure_blocks: u32,
}

impl Parameters {
    /// Largest W.
    pub const WINDOW_MAX: u32 = 64;

    /// Longest key: bounds a trie's depth (state.md 0.1).
    pub const KEY_BYTES_MAX: usize = 1024;

    /// Largest quota a network may have: what etcd's "none" becomes.
    pub const QUOTA_BYTES_MAX: u64 = 1 << 50;

    /// Slower than 8 s Kubernetes gives up (trust.md 3.6, rule 7).
    pub const VIEW_TIMEOUT_MS: RangeInclusive<u64> = 100..=8_000;

    /// What one message between replicas holds.
    pub const REQUEST_BYTES: RangeInclusive<u64> = 1..=4 << 20;

    /// What one block has time for.
    pub const TXN_OPS: RangeInclusive<u64> = 1..=4096;

    /// The parameter that lies outside of what a network may have, its value, and what it may be.
    #[must_use]
    pub fn out_of_bounds(&self) -> Option<(&'static str, u64, RangeInclusive<u64>)> {
        let bounds = [
            ("window", self.window.into(), 1..=Self::WINDOW_MAX.into()),
            ("time_bound_ms", self.time_bound_ms, 10..=10_000),
            ("view_timeout_ms", self.view_timeout_ms, Self::VIEW_TIMEOUT_MS),
            ("request_bytes_max", self.request_bytes_max.into(), Self::REQUEST_BYTES),
            ("txn_ops_max", self.txn_ops_max.into(), Self::TXN_OPS),
            ("quota_bytes", self.quota_bytes, 1..=Self::QUOTA_BYTES_MAX),
            ("checkpoint_log_bytes", self.checkpoint_log_bytes, 1 << 16..=1 << 40),
            ("checkpoint_state_factor", self.checkpoint_state_factor.into(), 0..=64),
            ("tenure_blocks", self.tenure_blocks.into(), 1..=1 << 30),
        ];
        bounds.into_iter().find(|(_, value, allowed)| !allowed.contains(value))
    }
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            window: 4,
            time_bound_ms: 500,
            view_timeout_ms: 1000,
            request_bytes_max: 1_572_864,
            txn_ops_max: 128,
            quota_bytes: 2 << 30,
            checkpoint_log_bytes: 64 << 20,
            checkpoint_state_factor: 2,
            tenure_blocks: 100_000,
        }
    }
}

impl Encode for Parameters {
    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.window);
        writer.u64(self.time_bound_ms);
        writer.u64(self.view_timeout_ms);
        writer.u32(self.request_bytes_max);
        writer.u32(self.txn_ops_max);
        writer.u64(self.quota_bytes);
        writer.u64(self.checkpoint_log_bytes);
        writer.u32(self.checkpoint_state_factor);
        writer.u32(self.tenure_blocks);
    }
}

impl Decode for Parameters {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let parameters = Self {
            window: reader.u32("parameter window")?,
            time_bound_ms: reader.u64("parameter time bound")?,
            view_timeout_ms: reader.u64("parameter view timeout")?,
            request_bytes_max: reader.u32("parameter request bytes")?,
            txn_ops_max: reader.u32("parameter txn ops")?,
            quota_bytes: reader.u64("parameter quota")?,
            checkpoint_log_bytes: reader.u64("parameter checkpoint bytes")?,
            checkpoint_state_factor: reader.u32("parameter checkpoint factor")?,
            tenure_blocks: reader.u32("parameter tenure blocks")?,
        };
        if parameters.window == 0 || parameters.window > Parameters::WINDOW_MAX {
            return Err(DecodeError::Invalid("parameter window"));
        }
        if parameters.tenure_blocks == 0 {
            return Err(DecodeError::Invalid("parameter tenure blocks"));
        }
        Ok(parameters)
    }
}

/// The members and parameters of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Which.
    pub epoch: Epoch,
    /// In ascending order of id, at least one voting.
    pub members: Vec<Member>,
    /// In force.
    pub parameters: Parameters,
    /// Index among the voters of view 0's primary.
    pub first_primary: u16,
}

impl Membership {
    /// All members that vote, in ascending order of id.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.voting)
    }

    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: ReplicaId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The voting member with this id.
    #[must_use]
    pub fn voter(&self, id: ReplicaId) -> Option<&Member> {
        self.member(id).filter(|member| member.voting)
    }

    /// The sizes for this many voters.
    #[must_use]
    pub fn quorum(&self) -> Quorum {
        Quorum::of(self.voters().count())
    }

    /// The primary of a view: voters sorted by id, index (first + view) mod n (consensus.md 7).
    #[must_use]
    pub fn primary(&self, view: View) -> ReplicaId {
        let n = self.voters().count() as u64;
        let index = (view.0 % n + u64::from(self.first_primary)) % n;
        let at = usize::try_from(index).expect("below the number of voters");
        self.voters().nth(at).expect("an index below the number of voters").id
    }

    /// Hash of all of it: `config_hash` in headers.
    #[must_use]
    pub fn config_hash(&self) -> Digest {
        hash(&Context::CONFIG, &[&self.to_bytes()])
    }
}

impl Encode for Membership {
    fn encode(&self, writer: &mut Writer) {
        writer.u16(1);
        writer.u64(self.epoch.0);
        writer.length(self.members.len());
        for member in &self.members {
            writer.u16(member.id.0);
            writer.u16(member.organisation.0);
            writer.raw(&member.key.0);
            writer.bool(member.voting);
        }
        self.parameters.encode(writer);
        writer.u16(self.first_primary);
    }
}

impl Decode for Membership {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        if reader.u16("membership version")? != 1 {
            return Err(DecodeError::Invalid("membership version"));
        }
        let epoch = Epoch(reader.u64("membership epoch")?);
        let mut members = Vec::new();
        for _ in 0..reader.length(MEMBERS_MAX, "membership members")? {
            members.push(Member {
                id: ReplicaId(reader.u16("member id")?),
                organisation: OrgId(reader.u16("member organisation")?),
                key: PublicKey(reader.array("member key")?),
                voting: reader.bool("member voting")?,
            });
        }
        let ascending = members.is_sorted_by(|one, two| one.id < two.id);
        if !ascending || !members.iter().any(|member| member.voting) {
            return Err(DecodeError::Invalid("membership members"));
        }
        let parameters = Parameters::decode(reader)?;
        Ok(Self { epoch, members, parameters, first_primary: reader.u16("membership primary")? })
    }
}
