//! The newest signed vote of each kind, as others saw it and as the own log knows it (protocol.md 6.5).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chain::{BundleHeader, Certificate, Membership, Phase, Vote};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::ordering::ViewChange;
use crate::types::{Epoch, Height, ReplicaId, View};

/// What one replica was last seen to sign, of each kind: a PREPARE in a view it leads says nothing about
/// its log (R1), so it must not hide one in a view it follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownVotes {
    /// COMMIT.
    pub commit: Option<Arc<Vote>>,
    /// PREPARE in a view of another primary.
    pub prepare: Option<Arc<Vote>>,
    /// PREPARE in a view it leads.
    pub proposal: Option<Arc<Vote>>,
    /// VIEW-CHANGE.
    pub view_change: Option<Arc<ViewChange>>,
    /// The head of a bundle.
    pub bundle: Option<BundleHeader>,
}

/// What all members were last seen to sign. Bounded: one of each kind per member.
#[derive(Clone, Debug, Default)]
pub struct SeenVotes {
    members: BTreeMap<ReplicaId, ShownVotes>,
}

impl SeenVotes {
    /// Notes a vote of the current epoch, if it is the newest of its kind.
    pub fn note_vote(&mut self, vote: &Arc<Vote>, membership: &Membership) {
        let voter = vote.signed.replica;
        if membership.voter(voter).is_none() || vote.epoch != membership.epoch {
            return;
        }
        let shown = self.members.entry(voter).or_default();
        let slot = match vote.phase {
            Phase::Commit => &mut shown.commit,
            Phase::Prepare if membership.primary(vote.view) == voter => &mut shown.proposal,
            Phase::Prepare => &mut shown.prepare,
        };
        if slot.as_ref().is_none_or(|kept| kept.rank() < vote.rank()) {
            *slot = Some(Arc::clone(vote));
        }
    }

    /// Notes the votes a certificate is made of.
    pub fn note_certificate(&mut self, certificate: &Certificate, membership: &Membership) {
        let Certificate { phase, epoch, view, .. } = *certificate;
        for signed in &certificate.signatures {
            let vote = Vote { phase, epoch, view, signed: signed.clone() };
            self.note_vote(&Arc::new(vote), membership);
        }
    }

    pub(super) fn note_view_change(&mut self, view_change: &Arc<ViewChange>) {
        let round = |view_change: &ViewChange| (view_change.epoch, view_change.view);
        let slot = &mut self.members.entry(view_change.replica).or_default().view_change;
        if slot.as_ref().is_none_or(|kept| round(kept) < round(view_change)) {
            *slot = Some(Arc::clone(view_change));
        }
    }

    /// Notes a bundle whose signature holds, if it opens a newer session of its origin, a member.
    pub fn note_bundle(&mut self, bundle: &crate::chain::Bundle) {
        let slot = &mut self.members.entry(bundle.origin).or_default().bundle;
        if slot.as_ref().is_none_or(|kept| kept.session < bundle.session) {
            *slot = Some(bundle.header());
        }
    }

    pub(super) fn of(&self, replica: ReplicaId) -> ShownVotes {
        self.members.get(&replica).cloned().unwrap_or_default()
    }
}

/// (epoch, view, height).
type Place = (Epoch, View, Height);

/// The newest own signature of each kind that the log justifies or this process made. What is newer was
/// signed on records that are not there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KnownVotes {
    pub commit: Place,
    pub prepare: Place,
    pub proposal: Place,
    pub asked: (Epoch, View),
    pub session: u64,
}

impl KnownVotes {
    /// This process signs a vote.
    pub fn note_vote(&mut self, vote: &Vote, leads: bool) {
        let slot = match vote.phase {
            Phase::Commit => &mut self.commit,
            Phase::Prepare if leads => &mut self.proposal,
            Phase::Prepare => &mut self.prepare,
        };
        *slot = (*slot).max(vote.rank());
    }

    /// All lost votes lie in views up to `view`: a REJOIN was committed there (protocol.md 6.7). A lost
    /// VIEW-CHANGE may have asked for one more.
    pub fn cover(&mut self, epoch: Epoch, view: View) {
        let end = (epoch, view, Height(u64::MAX));
        for slot in [&mut self.commit, &mut self.prepare, &mut self.proposal] {
            *slot = (*slot).max(end);
        }
        self.asked = self.asked.max((epoch, view.next()));
    }
}

fn put<T>(item: Option<&T>, writer: &mut Writer, encode: impl Fn(&T, &mut Writer)) {
    writer.bool(item.is_some());
    if let Some(item) = item {
        encode(item, writer);
    }
}

fn get<T: Decode>(reader: &mut Reader) -> Result<Option<T>, DecodeError> {
    Ok(if reader.bool("shown vote tag")? { Some(T::decode(reader)?) } else { None })
}

impl Encode for ShownVotes {
    fn encode(&self, writer: &mut Writer) {
        for vote in [&self.commit, &self.prepare, &self.proposal] {
            put(vote.as_ref(), writer, |vote, writer| vote.encode(writer));
        }
        put(self.view_change.as_ref(), writer, |item, writer| item.encode(writer));
        put(self.bundle.as_ref(), writer, BundleHeader::encode);
    }
}

impl Decode for ShownVotes {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            commit: get(reader)?.map(Arc::new),
            prepare: get(reader)?.map(Arc::new),
            proposal: get(reader)?.map(Arc::new),
            view_change: get(reader)?.map(Arc::new),
            bundle: get(reader)?,
        })
    }
}

/// How an answering replica stands to the one that asks (protocol.md 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Standing {
    /// Its log is empty too, and it waits for the handshake.
    Empty = 1,
    /// It began when all were empty, the asking process among them.
    Agreed = 2,
    /// It began, and has cast no vote.
    Begun = 3,
    /// It may have voted.
    Started = 4,
    /// Fenced or quarantined: its answer does not count.
    Fenced = 5,
}

/// What a voter holds of the asking replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VotesAnswer {
    /// The question's.
    pub nonce: [u8; 32],
    /// The answering process's own.
    pub from: [u8; 32],
    /// How it stands.
    pub standing: Standing,
    /// The newest it holds of each kind.
    pub votes: ShownVotes,
}

impl Encode for VotesAnswer {
    fn encode(&self, writer: &mut Writer) {
        writer.raw(&self.nonce);
        writer.raw(&self.from);
        writer.u8(self.standing as u8);
        self.votes.encode(writer);
    }
}

impl Decode for VotesAnswer {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            nonce: reader.array("answer nonce")?,
            from: reader.array("answer start")?,
            standing: match reader.u8("standing")? {
                1 => Standing::Empty,
                2 => Standing::Agreed,
                3 => Standing::Begun,
                4 => Standing::Started,
                5 => Standing::Fenced,
                _ => return Err(DecodeError::Invalid("standing")),
            },
            votes: ShownVotes::decode(reader)?,
        })
    }
}
