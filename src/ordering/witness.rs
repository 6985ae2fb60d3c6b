//! What is kept of others' signed words, so that a contradiction is found (protocol.md 13).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{Bundle, Certificate, Evidence, Phase, ViewChange, Vote};
use crate::codec::{Encode, Reader};
use crate::types::{Digest, Height, ReplicaId, View};

/// Proofs against one replica that are kept and told: one is enough, more tell nothing new.
const PROOFS_PER_ACCUSED: usize = 8;
/// Bundles per origin that a second content is looked for in.
const BUNDLES_KEPT: usize = 64;
/// Their bytes, values left out.
const BUNDLE_BYTES_KEPT: usize = 1 << 20;

pub(super) type Place = (View, Height);

#[derive(Clone)]
pub(super) struct Seen {
    pub vote: Arc<Vote>,
    pub verified: bool,
}

struct SeenBundle {
    bytes: Bytes,
    digest: Digest,
    end_seq: u64,
}

/// Others' votes, view changes and bundles of late, each bounded.
#[derive(Default)]
pub(super) struct Witness {
    votes: BTreeMap<Place, BTreeMap<(ReplicaId, Phase), Seen>>,
    view_changes: BTreeMap<ReplicaId, Arc<ViewChange>>,
    bundles: BTreeMap<ReplicaId, BTreeMap<(u64, u64), SeenBundle>>,
    /// Votes that were shown to all because they contradict another replica's.
    shown: BTreeSet<(Place, ReplicaId, Phase)>,
    proofs: BTreeMap<Digest, Arc<Evidence>>,
    accused: BTreeMap<ReplicaId, usize>,
    /// The certificate that the own chain was last committed by.
    pub committed: Option<Certificate>,
    /// A view whose primary was proven a liar in this step.
    pub proven_in: Option<View>,
}

impl Witness {
    /// Files a vote where no vote of its voter is; an earlier one that says otherwise is returned.
    pub fn file(&mut self, vote: &Arc<Vote>, verified: bool) -> Option<Seen> {
        let key = (vote.signed.replica, vote.phase);
        let mut contradicted = None;
        for (height, hash) in covered(vote) {
            let place = self.votes.entry((vote.view, height)).or_default();
            match place.get_mut(&key) {
                None => {
                    place.insert(key, Seen { vote: Arc::clone(vote), verified });
                }
                Some(seen) if seen.vote.signed.hash_at(height) != Some(hash) => {
                    contradicted = Some(seen.clone());
                }
                Some(seen) if verified && !seen.verified => {
                    *seen = Seen { vote: Arc::clone(vote), verified };
                }
                Some(_) => {}
            }
        }
        contradicted
    }

    /// Forgets a vote that its voter did not sign.
    pub fn forget(&mut self, vote: &Vote) {
        let key = (vote.signed.replica, vote.phase);
        for (height, _) in covered(vote) {
            if let Some(place) = self.votes.get_mut(&(vote.view, height))
                && place.get(&key).is_some_and(|seen| seen.vote.as_ref() == vote)
            {
                place.remove(&key);
            }
        }
    }

    /// Remembers that a vote is its voter's.
    pub fn settle(&mut self, vote: &Vote) {
        let key = (vote.signed.replica, vote.phase);
        for (height, _) in covered(vote) {
            if let Some(seen) =
                self.votes.get_mut(&(vote.view, height)).and_then(|p| p.get_mut(&key))
                && seen.vote.as_ref() == vote
            {
                seen.verified = true;
            }
        }
    }

    /// A vote of another replica for another block where this one votes, and the place, if not both
    /// have been shown already.
    pub fn opposed(&self, vote: &Vote) -> Option<(Place, Seen)> {
        covered(vote).find_map(|(height, hash)| {
            let place = (vote.view, height);
            let others = self.votes.get(&place)?;
            others.iter().find_map(|((voter, phase), seen)| {
                let other = *voter != vote.signed.replica
                    && seen.vote.signed.hash_at(height).is_some_and(|other| other != hash);
                let shown = self.shown.contains(&(place, *voter, *phase))
                    && self.shown.contains(&(place, vote.signed.replica, vote.phase));
                (other && !shown).then(|| (place, seen.clone()))
            })
        })
    }

    /// Notes that a vote is shown to all; false if it was before.
    pub fn show(&mut self, place: Place, vote: &Vote) -> bool {
        self.shown.insert((place, vote.signed.replica, vote.phase))
    }

    /// COMMITs of a replica in views below `view`.
    pub fn commits_below(&self, view: View, of: ReplicaId) -> Vec<Seen> {
        let key = (of, Phase::Commit);
        let below = self.votes.range(..(view, Height(0)));
        below.filter_map(|(_, place)| place.get(&key).cloned()).collect()
    }

    /// The newest VIEW-CHANGE of a replica.
    pub fn view_change(&self, of: ReplicaId) -> Option<Arc<ViewChange>> {
        self.view_changes.get(&of).cloned()
    }

    pub fn file_view_change(&mut self, view_change: &Arc<ViewChange>) {
        let known = self.view_changes.entry(view_change.replica);
        let known = known.or_insert_with(|| Arc::clone(view_change));
        if (known.epoch, known.view) < (view_change.epoch, view_change.view) {
            *known = Arc::clone(view_change);
        }
    }

    /// Files a bundle that verifies; one with another content for the same numbers is returned.
    pub fn file_bundle(&mut self, bundle: &Bundle) -> Option<Bundle> {
        if self.overlapping(bundle).is_some() {
            return self.other_content(bundle);
        }
        let of_origin = self.bundles.entry(bundle.origin).or_default();
        let (session, end) = (bundle.session, bundle.end_seq());
        // Copied: the bundle's own bytes would keep the frame it came in.
        let bytes = Bytes::copy_from_slice(&bundle.without_values().to_bytes());
        let seen = SeenBundle { bytes, digest: bundle.digest(), end_seq: end };
        of_origin.insert((session, bundle.first_seq), seen);
        let mut held: usize = of_origin.values().map(|seen| seen.bytes.len()).sum();
        while of_origin.len() > BUNDLES_KEPT || held > BUNDLE_BYTES_KEPT {
            let Some((_, seen)) = of_origin.pop_first() else { break };
            held -= seen.bytes.len();
        }
        None
    }

    /// An earlier bundle with another content for one of its sequence numbers.
    pub fn other_content(&self, bundle: &Bundle) -> Option<Bundle> {
        let seen = self.overlapping(bundle).filter(|seen| seen.digest != bundle.digest())?;
        Bundle::decode_without_values(&mut Reader::new(seen.bytes.clone())).ok()
    }

    fn overlapping(&self, bundle: &Bundle) -> Option<&SeenBundle> {
        let of_origin = self.bundles.get(&bundle.origin)?;
        let (session, end) = (bundle.session, bundle.end_seq());
        let ((of_session, _), seen) = of_origin.range(..(session, end)).next_back()?;
        (*of_session == session && seen.end_seq > bundle.first_seq).then_some(seen)
    }

    /// Forgets votes and what was shown at places that are of no interest any more.
    pub fn retain(&mut self, keep: &dyn Fn(&Place) -> bool) {
        self.votes.retain(|place, _| keep(place));
        self.shown.retain(|(place, ..)| keep(place));
    }

    /// Whether a proof adds anything to what is known.
    pub fn is_news(&self, evidence: &Evidence) -> bool {
        let full = |id: &ReplicaId| self.accused.get(id).is_some_and(|n| *n >= PROOFS_PER_ACCUSED);
        let accused = evidence.accused();
        let tiresome = !accused.is_empty() && accused.iter().all(full);
        !tiresome && !self.proofs.contains_key(&evidence.digest())
    }

    pub fn remember(&mut self, evidence: &Arc<Evidence>) {
        for id in evidence.accused() {
            *self.accused.entry(id).or_default() += 1;
        }
        self.proofs.insert(evidence.digest(), Arc::clone(evidence));
    }

    pub fn proofs(&self) -> Vec<Arc<Evidence>> {
        self.proofs.values().cloned().collect()
    }

    pub fn places(&self) -> usize {
        self.votes.len()
    }
}

fn covered(vote: &Vote) -> impl Iterator<Item = (Height, Digest)> {
    let from = vote.signed.from_height;
    (0_u64..).zip(&vote.signed.hashes).map(move |(at, hash)| (from.plus(at), *hash))
}
