use core::fmt;

use crate::chain::evidence_check::{NewViewFault, new_view_fault};
use crate::chain::{BlockHeader, Bundle, Certificate, CheckpointVote, EpochProof};
use crate::chain::{EvidenceKind, Membership, NewView};
use crate::chain::{Phase, ViewChange, Vote};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, PublicKey, Scheme, hash};
use crate::planted::{self, Bug};
use crate::types::{ClusterId, Digest, Epoch, ReplicaId};

const VERSION: u16 = 1;
const EPOCHS_MAX: usize = 4096;
/// Longest path between two conflicting certificates that one proof carries.
const FORK_HEADERS_MAX: usize = 1024;

/// Proof, from signed bytes alone, that replicas broke the protocol (protocol.md 13).
///
/// Pairs are kept in the order of their bytes, so that one contradiction has one encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Two votes of one phase, epoch and view for different blocks at one height.
    DoubleVote(Box<(Vote, Vote)>),
    /// A COMMIT, and a VIEW-CHANGE for a later view whose certificates both rank below it.
    Amnesia(Box<(Vote, ViewChange)>),
    /// A NEW-VIEW whose primary signed VIEW-CHANGEs that are none, or too few.
    FalseNewView(Box<(ReplicaId, NewView)>),
    /// Two CHECKPOINTs of one height for different states.
    DoubleCheckpoint(Box<(CheckpointVote, CheckpointVote)>),
    /// Two contents for one sequence number of one session; without values.
    DoubleBundle(Box<(Bundle, Bundle)>),
    /// Two committed blocks of which neither descends from the other: more than f lied.
    Fork(Box<Fork>),
}

/// Two commit certificates on different branches of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The one of the lower height; of equal heights the one of the smaller bytes.
    pub low: Certificate,
    /// The other.
    pub high: Certificate,
    /// Headers of the blocks above `low` up to the one `high` certifies.
    pub headers: Vec<BlockHeader>,
}

/// Why evidence proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceError {
    /// The members of this epoch are not known to who checks.
    Epoch(Epoch),
    /// What was signed does not contradict itself.
    NoContradiction,
    /// This replica does not vote in the epoch or did not sign.
    Signature(ReplicaId),
    /// The NEW-VIEW is of another primary than the one named, or is sound.
    NewView,
    /// One of the two certificates certifies nothing.
    Certificate,
}

impl fmt::Display for EvidenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch(epoch) => {
                write!(f, "it is of epoch {epoch}, whose members are not known here")
            }
            Self::NoContradiction => write!(f, "what was signed does not contradict itself"),
            Self::Signature(id) => {
                write!(f, "replica {id} did not sign what it is accused of, or may not vote")
            }
            Self::NewView => write!(f, "the NEW-VIEW is sound, or of another primary"),
            Self::Certificate => write!(f, "a certificate in it certifies nothing"),
        }
    }
}

impl std::error::Error for EvidenceError {}

/// Whom signed bytes are checked against.
#[derive(Clone, Copy)]
pub struct Trust<'a> {
    /// The network.
    pub cluster_id: &'a ClusterId,
    /// The members of every epoch that is known, in any order.
    pub memberships: &'a [Membership],
    /// Checks signatures.
    pub scheme: &'a dyn Scheme,
}

impl Trust<'_> {
    /// The members of an epoch.
    #[must_use]
    pub fn members(&self, epoch: Epoch) -> Option<&Membership> {
        self.memberships.iter().find(|membership| membership.epoch == epoch)
    }

    fn known(&self, epoch: Epoch) -> Result<&Membership, EvidenceError> {
        let newest = || self.memberships.iter().max_by_key(|membership| membership.epoch);
        if planted::is(Bug::OldKeyForgotten) {
            return newest().ok_or(EvidenceError::Epoch(epoch));
        }
        self.members(epoch).ok_or(EvidenceError::Epoch(epoch))
    }
}

impl Evidence {
    /// Two votes as evidence, if they contradict each other.
    #[must_use]
    pub fn double_vote(one: &Vote, two: &Vote) -> Option<Self> {
        let same_round = (one.phase, one.epoch, one.view) == (two.phase, two.epoch, two.view)
            && one.signed.replica == two.signed.replica;
        let contradict = one.signed.hashes.iter().zip(0_u64..).any(|(hash, at)| {
            let height = one.signed.from_height.plus(at);
            two.signed.hash_at(height).is_some_and(|other| other != *hash)
        });
        (same_round && contradict).then(|| Self::DoubleVote(Box::new(in_order(one, two))))
    }

    /// A COMMIT and a VIEW-CHANGE that forgot it, as evidence. A correct replica's prepared certificate
    /// ranks at least as high as every COMMIT it sent (protocol.md 4.4), a rejoined one's commit
    /// certificate as high as every COMMIT it lost.
    #[must_use]
    pub fn amnesia(commit: &Vote, view_change: &ViewChange) -> Option<Self> {
        let last = commit.signed.hashes.len().checked_sub(1)? as u64;
        let rank = (commit.epoch, commit.view, commit.signed.from_height.plus(last));
        let quoted = [view_change.prepared.as_ref(), view_change.committed.as_ref()];
        let forgot = quoted.into_iter().flatten().all(|certificate| certificate.rank() < rank);
        let applies = commit.phase == Phase::Commit
            && commit.signed.replica == view_change.replica
            && commit.epoch == view_change.epoch
            && commit.view < view_change.view;
        (applies && forgot).then(|| Self::Amnesia(Box::new((commit.clone(), view_change.clone()))))
    }

    /// A NEW-VIEW as evidence against the primary that signed it, if it is none.
    #[must_use]
    pub fn false_new_view(new_view: &NewView, trust: &Trust<'_>) -> Option<Self> {
        let primary = trust.members(new_view.epoch)?.primary(new_view.view);
        let evidence = Self::FalseNewView(Box::new((primary, new_view.clone())));
        evidence.verify(trust).is_ok().then_some(evidence)
    }

    /// Two CHECKPOINTs as evidence, if they contradict each other.
    #[must_use]
    pub fn double_checkpoint(one: &CheckpointVote, two: &CheckpointVote) -> Option<Self> {
        let contradict = one.replica == two.replica
            && one.epoch == two.epoch
            && one.id.height == two.id.height
            && one.id != two.id;
        contradict.then(|| Self::DoubleCheckpoint(Box::new(in_order(one, two))))
    }

    /// Two bundles as evidence, if they give one sequence number two contents.
    #[must_use]
    pub fn double_bundle(one: &Bundle, two: &Bundle) -> Option<Self> {
        let contradict = (one.origin, one.session) == (two.origin, two.session)
            && one.first_seq < two.end_seq()
            && two.first_seq < one.end_seq()
            && one.digest() != two.digest();
        let (one, two) = (one.without_values(), two.without_values());
        contradict.then(|| Self::DoubleBundle(Box::new(in_order(&one, &two))))
    }

    /// Two commit certificates as evidence, if `headers` (of the blocks above the lower one up to the
    /// higher one) show that they lie on different branches.
    #[must_use]
    pub fn fork(one: &Certificate, two: &Certificate, headers: Vec<BlockHeader>) -> Option<Self> {
        let (low, high) = if one.height == two.height {
            in_order(one, two)
        } else if one.height < two.height {
            (one.clone(), two.clone())
        } else {
            (two.clone(), one.clone())
        };
        let fork = Fork { low, high, headers };
        fork.diverges().then(|| Self::Fork(Box::new(fork)))
    }

    /// Whom it proves guilty. A fork across views names nobody: an honest replica may have followed a
    /// NEW-VIEW of liars; see [`Evidence::suspects`].
    #[must_use]
    pub fn accused(&self) -> Vec<ReplicaId> {
        match self {
            Self::DoubleVote(votes) => vec![votes.0.signed.replica],
            Self::Amnesia(both) => vec![both.0.signed.replica],
            Self::FalseNewView(both) => vec![both.0],
            Self::DoubleCheckpoint(votes) => vec![votes.0.replica],
            Self::DoubleBundle(bundles) => vec![bundles.0.origin],
            Self::Fork(fork) if fork.is_in_one_view() => fork.signers_of_both(),
            Self::Fork(_) => Vec::new(),
        }
    }

    /// A set of which more than f are guilty; for all kinds but a fork the accused.
    #[must_use]
    pub fn suspects(&self) -> Vec<ReplicaId> {
        match self {
            Self::Fork(fork) => fork.signers_of_both(),
            _ => self.accused(),
        }
    }

    /// The last epoch it speaks of; None if none is signed.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::DoubleVote(votes) => Some(votes.0.epoch),
            Self::Amnesia(both) => Some(both.0.epoch),
            Self::FalseNewView(both) => Some(both.1.epoch),
            Self::DoubleCheckpoint(votes) => Some(votes.0.epoch),
            Self::DoubleBundle(_) => None,
            Self::Fork(fork) => Some(fork.low.epoch.max(fork.high.epoch)),
        }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> EvidenceKind {
        match self {
            Self::DoubleVote(_) => EvidenceKind::DoubleVote,
            Self::Amnesia(_) => EvidenceKind::Amnesia,
            Self::FalseNewView(_) => EvidenceKind::FalseNewView,
            Self::DoubleCheckpoint(_) => EvidenceKind::DoubleCheckpoint,
            Self::DoubleBundle(_) => EvidenceKind::DoubleBundle,
            Self::Fork(_) => EvidenceKind::Fork,
        }
    }

    /// Names it for ever: equal for the same contradiction, whoever found it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        hash(&Context::EVIDENCE, &[&self.to_bytes()])
    }

    /// Whether it proves what it says.
    ///
    /// # Errors
    /// [`EvidenceError`]; nobody is accused then.
    pub fn verify(&self, trust: &Trust<'_>) -> Result<(), EvidenceError> {
        match self {
            Self::DoubleVote(votes) => {
                let (one, two) = votes.as_ref();
                Self::double_vote(one, two).ok_or(EvidenceError::NoContradiction)?;
                check_vote(one, trust)?;
                check_vote(two, trust)
            }
            Self::Amnesia(both) => {
                let (commit, view_change) = both.as_ref();
                Self::amnesia(commit, view_change).ok_or(EvidenceError::NoContradiction)?;
                check_vote(commit, trust)?;
                let membership = trust.known(view_change.epoch)?;
                let signed = view_change.verify(trust.cluster_id, membership, trust.scheme);
                signed_by(view_change.replica, signed)
            }
            Self::FalseNewView(both) => {
                let (primary, new_view) = both.as_ref();
                let membership = trust.known(new_view.epoch)?;
                if membership.primary(new_view.view) != *primary {
                    return Err(EvidenceError::NewView);
                }
                let signed = new_view.verify(trust.cluster_id, membership, trust.scheme);
                signed_by(*primary, signed)?;
                match new_view_fault(new_view, membership, trust) {
                    Some(_) => Ok(()),
                    None => Err(EvidenceError::NewView),
                }
            }
            Self::DoubleCheckpoint(votes) => {
                let (one, two) = votes.as_ref();
                Self::double_checkpoint(one, two).ok_or(EvidenceError::NoContradiction)?;
                [one, two].into_iter().try_for_each(|vote| {
                    let membership = trust.known(vote.epoch)?;
                    signed_by(vote.replica, vote.verify(trust.cluster_id, membership, trust.scheme))
                })
            }
            Self::DoubleBundle(bundles) => {
                let (one, two) = bundles.as_ref();
                Self::double_bundle(one, two).ok_or(EvidenceError::NoContradiction)?;
                [one, two].into_iter().try_for_each(|bundle| check_bundle(bundle, trust))
            }
            Self::Fork(fork) => {
                if !fork.diverges() {
                    return Err(EvidenceError::NoContradiction);
                }
                [&fork.low, &fork.high].into_iter().try_for_each(|certificate| {
                    let membership = trust.known(certificate.epoch)?;
                    let checked = certificate.check(trust.cluster_id, membership, trust.scheme);
                    checked.map_err(|_| EvidenceError::Certificate)
                })
            }
        }
    }

    /// What is wrong with the NEW-VIEW of a [`Evidence::FalseNewView`].
    #[must_use]
    pub fn new_view_fault(&self, trust: &Trust<'_>) -> Option<NewViewFault> {
        match self {
            Self::FalseNewView(both) => {
                new_view_fault(&both.1, trust.members(both.1.epoch)?, trust)
            }
            _ => None,
        }
    }
}

impl Fork {
    fn is_in_one_view(&self) -> bool {
        (self.low.epoch, self.low.view) == (self.high.epoch, self.high.view)
    }

    fn signers_of_both(&self) -> Vec<ReplicaId> {
        let signers = |certificate: &Certificate| -> Vec<ReplicaId> {
            certificate.signatures.iter().map(|signed| signed.replica).collect()
        };
        let high = signers(&self.high);
        signers(&self.low).into_iter().filter(|id| high.contains(id)).collect()
    }

    /// Whether the headers lead from the higher block down to another one than the lower block.
    fn diverges(&self) -> bool {
        let commits = self.low.phase == Phase::Commit && self.high.phase == Phase::Commit;
        let distance = self.high.height.0.checked_sub(self.low.height.0);
        if !commits || distance != Some(self.headers.len() as u64) {
            return false;
        }
        let mut expected = self.high.block_hash;
        for header in self.headers.iter().rev() {
            if header.hash() != expected {
                return false;
            }
            expected = header.parent;
        }
        let numbered =
            (1..).zip(&self.headers).all(|(at, header)| header.height == self.low.height.plus(at));
        numbered && expected != self.low.block_hash
    }
}

fn signed_by(replica: ReplicaId, signed: bool) -> Result<(), EvidenceError> {
    if signed { Ok(()) } else { Err(EvidenceError::Signature(replica)) }
}

fn check_vote(vote: &Vote, trust: &Trust<'_>) -> Result<(), EvidenceError> {
    let membership = trust.known(vote.epoch)?;
    let signed = vote.verify(trust.cluster_id, membership, trust.scheme);
    signed_by(vote.signed.replica, signed)
}

/// A bundle names no epoch: any key its origin ever had makes it the origin's (protocol.md 13.8).
fn check_bundle(bundle: &Bundle, trust: &Trust<'_>) -> Result<(), EvidenceError> {
    let origin = |membership: &Membership| membership.member(bundle.origin).map(|one| one.key);
    let mut keys: Vec<PublicKey> = trust.memberships.iter().filter_map(origin).collect();
    keys.dedup();
    let signed = keys.iter().any(|key| bundle.verify(trust.cluster_id, key, trust.scheme));
    signed_by(bundle.origin, signed)
}

fn in_order<T: Clone + Encode>(one: &T, two: &T) -> (T, T) {
    if one.to_bytes() <= two.to_bytes() {
        (one.clone(), two.clone())
    } else {
        (two.clone(), one.clone())
    }
}

fn ordered<T: Encode>(one: T, two: T) -> Result<Box<(T, T)>, DecodeError> {
    if one.to_bytes() < two.to_bytes() {
        Ok(Box::new((one, two)))
    } else {
        Err(DecodeError::Invalid("evidence order"))
    }
}

impl Encode for Evidence {
    fn encode(&self, writer: &mut Writer) {
        writer.u16(VERSION);
        writer.u8(self.kind() as u8);
        match self {
            Self::DoubleVote(votes) => {
                votes.0.encode(writer);
                votes.1.encode(writer);
            }
            Self::Amnesia(both) => {
                both.0.encode(writer);
                both.1.encode(writer);
            }
            Self::FalseNewView(both) => {
                writer.u16(both.0.0);
                both.1.encode(writer);
            }
            Self::DoubleCheckpoint(votes) => {
                votes.0.encode(writer);
                votes.1.encode(writer);
            }
            Self::DoubleBundle(bundles) => {
                bundles.0.encode(writer);
                bundles.1.encode(writer);
            }
            Self::Fork(fork) => {
                fork.low.encode(writer);
                fork.high.encode(writer);
                writer.length(fork.headers.len());
                fork.headers.iter().for_each(|header| header.encode(writer));
            }
        }
    }
}

impl Decode for Evidence {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        if reader.u16("evidence version")? != VERSION {
            return Err(DecodeError::Invalid("evidence version"));
        }
        Ok(match reader.u8("evidence kind")? {
            1 => Self::DoubleVote(ordered(Vote::decode(reader)?, Vote::decode(reader)?)?),
            2 => Self::Amnesia(Box::new((Vote::decode(reader)?, ViewChange::decode(reader)?))),
            3 => {
                let primary = ReplicaId(reader.u16("evidence primary")?);
                Self::FalseNewView(Box::new((primary, NewView::decode(reader)?)))
            }
            4 => {
                let one = CheckpointVote::decode(reader)?;
                Self::DoubleCheckpoint(ordered(one, CheckpointVote::decode(reader)?)?)
            }
            5 => {
                let one = Bundle::decode_without_values(reader)?;
                Self::DoubleBundle(ordered(one, Bundle::decode_without_values(reader)?)?)
            }
            6 => {
                let (low, high) = (Certificate::decode(reader)?, Certificate::decode(reader)?);
                let mut headers = Vec::new();
                for _ in 0..reader.length(FORK_HEADERS_MAX, "fork headers")? {
                    headers.push(BlockHeader::decode(reader)?);
                }
                Self::Fork(Box::new(Fork { low, high, headers }))
            }
            _ => return Err(DecodeError::Invalid("evidence kind")),
        })
    }
}

/// Evidence as a file: it names its network, and with the genesis it is checked alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceFile {
    /// The network.
    pub cluster_id: ClusterId,
    /// How the epochs before the proof's ended: from the genesis they lead to the members it accuses.
    pub epochs: Vec<EpochProof>,
    /// The proof.
    pub evidence: Evidence,
}

impl EvidenceFile {
    const MAGIC: &[u8; 16] = b"althing evidence";

    /// Of all known epoch proofs it takes those that the proof needs.
    #[must_use]
    pub fn new(cluster_id: ClusterId, epochs: &[EpochProof], evidence: &Evidence) -> Self {
        let needed = evidence.epoch();
        let before = epochs.iter().filter(|proof| {
            // A bundle names no epoch: its origin's key may be of any.
            needed.is_none_or(|epoch| proof.certificate.epoch < epoch)
        });
        Self { cluster_id, epochs: before.cloned().collect(), evidence: evidence.clone() }
    }
}

impl Encode for EvidenceFile {
    fn encode(&self, writer: &mut Writer) {
        writer.raw(Self::MAGIC);
        writer.digest(&self.cluster_id);
        writer.length(self.epochs.len());
        self.epochs.iter().for_each(|proof| proof.encode(writer));
        self.evidence.encode(writer);
    }
}

impl Decode for EvidenceFile {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        if reader.array::<16>("evidence file")? != *Self::MAGIC {
            return Err(DecodeError::Invalid("evidence file"));
        }
        let cluster_id = reader.digest("evidence network")?;
        let mut epochs = Vec::new();
        for _ in 0..reader.length(EPOCHS_MAX, "evidence epochs")? {
            epochs.push(EpochProof::decode(reader)?);
        }
        Ok(Self { cluster_id, epochs, evidence: Evidence::decode(reader)? })
    }
}
