//! State transfer: a replica that blocks alone cannot bring up takes over a stable checkpoint, chunk
//! by chunk from all that hold it (protocol.md 18).
//!
//! Nothing a single peer says moves it: a certificate of a quorum names the manifest, the manifest
//! every chunk and its length. What remains to a liar is to be slow or useless.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{BlockHeader, CheckpointCertificate, Manifest};
use crate::ordering::{Alarm, Core, Message, Output};
use crate::planted::{self, Bug};
use crate::types::{Digest, Height, ReplicaId};

/// A stable checkpoint so far above the own chain is quicker than the blocks up to it.
const GAP_BLOCKS: u64 = 10_000;
/// Chunks asked of one peer and not answered.
const OUTSTANDING_MAX: usize = 2;
/// Then another peer is asked too; the late answer is still taken.
const ANSWER_MS: u64 = 3_000;
/// A peer that is late counts as busy so much longer.
const LATE_MS: u64 = 5_000;
/// Pause after a disk that was full, or when nobody holds what is wanted.
const RETRY_MS: u64 = 5_000;

/// What the shell is asked to do for a transfer, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferStep {
    /// Prepare to gather this checkpoint; answer with [`TransferEvent::Begun`].
    Begin {
        /// Of the block the state is as of.
        header: BlockHeader,
        /// Names the chunks; certified.
        manifest: Arc<Manifest>,
    },
    /// Check a chunk against the manifest and keep it; answer with [`TransferEvent::Stored`].
    Store {
        /// Which chunk.
        number: u32,
        /// Who sent it.
        peer: ReplicaId,
        /// As long as the manifest says, otherwise unchecked.
        bytes: Bytes,
    },
    /// All chunks are there: recompute the state's root, install, and start this core anew from
    /// what the disk holds then.
    Install {
        /// Of the checkpoint.
        height: Height,
    },
    /// Nothing is wanted any more; what was gathered may stay for the next time.
    Abandon,
}

/// What the shell says of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferEvent {
    /// Ready to take chunks; these are there already.
    Begun {
        /// The manifest's root.
        root: Digest,
        /// Chunk numbers.
        held: Vec<u32>,
    },
    /// A chunk was checked.
    Stored {
        /// The manifest's root.
        root: Digest,
        /// Which chunk.
        number: u32,
        /// Who had sent it.
        peer: ReplicaId,
        /// Whether it is the one that the manifest names; it is kept then.
        sound: bool,
    },
    /// The disk is full or the like: try again later.
    Failed {
        /// What happened.
        reason: String,
    },
}

/// The transfer under way, if one is.
#[derive(Default)]
pub(super) struct Transfer {
    phase: Phase,
    /// A peer answered that blocks from this height on are erased.
    erased_at: Option<Height>,
    /// Peers that do not hold the target.
    lacking: BTreeSet<ReplicaId>,
    /// What was asked of whom, of the manifest `asked_root`: nothing else is taken. Bounded by peers
    /// times chunks.
    asked: BTreeMap<(ReplicaId, u32), Asked>,
    asked_root: Digest,
    /// Peers that left a question of an earlier transfer unanswered.
    late: BTreeSet<ReplicaId>,
    retry_ms: u64,
    turn: usize,
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    /// The manifest is wanted.
    Manifest(Digest, Option<(ReplicaId, u64)>),
    /// The shell prepares.
    Beginning(Arc<Manifest>, Digest),
    Chunks(Download),
    /// The shell installs; this core is about to end.
    Installing,
}

struct Download {
    manifest: Arc<Manifest>,
    root: Digest,
    /// Not there and not being checked.
    missing: BTreeSet<u32>,
    /// With the shell.
    checking: BTreeSet<u32>,
}

#[derive(Clone, Copy)]
struct Asked {
    /// Late from then on.
    until_ms: u64,
    /// A second answer is dropped: the network may have doubled the first.
    answered: bool,
}

impl Asked {
    fn is_overdue(&self, now_ms: u64) -> bool {
        !self.answered && now_ms >= self.until_ms
    }
}

impl Transfer {
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    fn root(&self) -> Option<Digest> {
        match &self.phase {
            Phase::Manifest(root, _) | Phase::Beginning(_, root) => Some(*root),
            Phase::Chunks(download) => Some(download.root),
            Phase::Idle | Phase::Installing => None,
        }
    }

    /// Chunks there, and chunks in all.
    pub fn progress(&self) -> Option<(u32, u32)> {
        let Phase::Chunks(download) = &self.phase else { return None };
        let all = u32::try_from(download.manifest.chunks.len()).unwrap_or(u32::MAX);
        let left = download.missing.len() + download.checking.len();
        Some((all.saturating_sub(u32::try_from(left).unwrap_or(u32::MAX)), all))
    }

    fn outstanding(&self, peer: ReplicaId, now_ms: u64) -> usize {
        let of_peer = self.asked.range((peer, 0)..=(peer, u32::MAX));
        of_peer.filter(|(_, asked)| !asked.answered && now_ms < asked.until_ms + LATE_MS).count()
    }

    /// Whether a peer was asked in vain, as far as one can tell by now.
    fn is_late(&self, peer: ReplicaId, now_ms: u64) -> bool {
        let mut of_peer = self.asked.range((peer, 0)..=(peer, u32::MAX));
        self.late.contains(&peer) || of_peer.any(|(_, asked)| asked.is_overdue(now_ms))
    }

    /// Chunks that somebody was asked for and may still send in time.
    fn under_way(&self, now_ms: u64) -> BTreeSet<u32> {
        let waiting = |asked: &Asked| !asked.answered && now_ms < asked.until_ms;
        self.asked.iter().filter(|(_, asked)| waiting(asked)).map(|((_, of), _)| *of).collect()
    }
}

impl Core {
    /// The checkpoint to fetch: stable, above all that is committed here, and either the blocks in
    /// between are not to be had or there are too many of them.
    fn transfer_target(&self) -> Option<CheckpointCertificate> {
        let stable = self.checkpoints.stable.as_ref()?;
        let (target, committed) = (stable.id.height, self.blocks.committed.height);
        let erased = self.transfer.erased_at.is_some_and(|from| from > committed);
        let far = target > committed.plus(GAP_BLOCKS);
        (target > committed && (erased || far)).then(|| stable.clone())
    }

    /// Begins, goes on with or gives up a transfer.
    pub(super) fn advance_transfer(&mut self) {
        if self.quarantined {
            return;
        }
        let target = self.transfer_target();
        match (&self.transfer.phase, target) {
            (Phase::Installing, _) => {}
            (Phase::Idle, None) => {}
            (Phase::Idle, Some(target)) => {
                if self.now_ms >= self.transfer.retry_ms {
                    self.begin_transfer(&target);
                }
            }
            // Blocks have overtaken it after all.
            (_, None) => self.end_transfer(0),
            (Phase::Manifest(..), Some(target)) => self.ask_manifest(&target),
            (Phase::Beginning(..), Some(_)) => {}
            (Phase::Chunks(_), Some(target)) => self.ask_chunks(&target),
        }
    }

    fn begin_transfer(&mut self, target: &CheckpointCertificate) {
        let root = target.id.manifest_root;
        self.transfer.lacking.clear();
        if self.transfer.asked_root != root {
            let now_ms = self.now_ms;
            let asked = core::mem::take(&mut self.transfer.asked).into_iter();
            let owed = asked.filter(|(_, asked)| asked.is_overdue(now_ms));
            self.transfer.late.extend(owed.map(|((peer, _), _)| peer));
            self.transfer.asked_root = root;
        }
        self.transfer.phase = Phase::Manifest(root, None);
        self.counters.transfers_begun += 1;
        self.ask_manifest(target);
    }

    fn end_transfer(&mut self, pause_ms: u64) {
        self.transfer.phase = Phase::Idle;
        self.transfer.lacking.clear();
        self.transfer.retry_ms = self.now_ms + pause_ms;
        self.out.push(Output::Transfer(TransferStep::Abandon));
    }

    /// Who may hold the target, in turn, members of other epochs too. Who owes an answer is asked when
    /// nobody else is left.
    fn transfer_sources(&mut self) -> Vec<ReplicaId> {
        let up = self.peers.iter().filter(|(_, peer)| peer.up).map(|(id, _)| *id);
        let (late, timely): (Vec<_>, Vec<_>) = up
            .filter(|id| !self.is_banned(*id) && !self.transfer.lacking.contains(id))
            .partition(|id| self.transfer.is_late(*id, self.now_ms));
        let mut sources = if timely.is_empty() { late } else { timely };
        if !sources.is_empty() {
            self.transfer.turn = self.transfer.turn.wrapping_add(1) % sources.len();
            sources.rotate_left(self.transfer.turn);
        }
        sources
    }

    fn ask_manifest(&mut self, target: &CheckpointCertificate) {
        let Phase::Manifest(root, asked) = &self.transfer.phase else { return };
        let root = *root;
        if let Some((peer, until_ms)) = *asked {
            if self.now_ms < until_ms {
                return;
            }
            self.transfer.late.insert(peer);
            if self.is_outdated() {
                self.transfer.lacking.insert(peer);
            }
        }
        let Some(peer) = self.transfer_sources().first().copied() else {
            return self.reconsider(root, target);
        };
        let until_ms = self.now_ms + ANSWER_MS;
        self.transfer.phase = Phase::Manifest(root, Some((peer, until_ms)));
        self.tell(peer, Message::GetManifest { root });
    }

    /// Whether a correct replica has moved on from this checkpoint, as all will: who is late then is
    /// waited for no longer, for a liar that never answers would keep this transfer for ever (18.3).
    /// What is newer may not be known here yet: it is asked for between two attempts (18.1).
    fn is_outdated(&self) -> bool {
        self.transfer.lacking.len() > self.quorum.f() && !planted::is(Bug::LateSourceKept)
    }

    /// Nobody is left to ask: a newer checkpoint is taken, or the same again after a pause.
    fn reconsider(&mut self, root: Digest, target: &CheckpointCertificate) {
        let newer = target.id.manifest_root != root;
        self.end_transfer(if newer { 0 } else { RETRY_MS });
    }

    pub(super) fn on_manifest(
        &mut self,
        peer: ReplicaId,
        root: Digest,
        content: Option<(BlockHeader, Arc<Manifest>)>,
    ) {
        let asked = match &self.transfer.phase {
            Phase::Manifest(wanted, Some((asked, _))) => *asked == peer && *wanted == root,
            _ => false,
        };
        if !asked {
            return self.waste(peer);
        }
        self.transfer.late.remove(&peer);
        let Some((header, manifest)) = content else {
            self.transfer.lacking.insert(peer);
            self.transfer.phase = Phase::Manifest(root, None);
            return;
        };
        let named = manifest.root() == root
            && manifest.cluster_id == self.cluster_id
            && header.hash() == manifest.block_hash
            && header.height == manifest.height;
        if !named {
            self.transfer.phase = Phase::Manifest(root, None);
            return self.ban(peer, "a manifest that is not the certified one");
        }
        self.transfer.phase = Phase::Beginning(Arc::clone(&manifest), root);
        self.out.push(Output::Transfer(TransferStep::Begin { header, manifest }));
    }

    pub(super) fn on_transfer(&mut self, event: TransferEvent) {
        match event {
            TransferEvent::Begun { root, held } => {
                let Phase::Beginning(manifest, wanted) = &self.transfer.phase else { return };
                if *wanted != root {
                    return;
                }
                let held: BTreeSet<u32> = held.into_iter().collect();
                let all = u32::try_from(manifest.chunks.len()).unwrap_or(u32::MAX);
                let mut missing: BTreeSet<u32> = (0..all).collect();
                missing.retain(|number| !held.contains(number));
                self.counters.chunks_resumed += held.len() as u64;
                let (manifest, checking) = (Arc::clone(manifest), BTreeSet::new());
                let download = Download { manifest, root, missing, checking };
                self.transfer.phase = Phase::Chunks(download);
                self.finish_transfer();
            }
            TransferEvent::Stored { root, number, peer, sound } => {
                let Phase::Chunks(download) = &mut self.transfer.phase else { return };
                if download.root != root || !download.checking.remove(&number) {
                    return;
                }
                if sound {
                    self.counters.chunks_received += 1;
                    return self.finish_transfer();
                }
                download.missing.insert(number);
                self.counters.chunks_refused += 1;
                self.ban(peer, "a chunk that is not the one its manifest names");
            }
            TransferEvent::Failed { reason } => {
                self.out.push(Output::Alarm(Alarm::TransferFailed { reason }));
                self.end_transfer(RETRY_MS);
            }
        }
    }

    fn finish_transfer(&mut self) {
        let Phase::Chunks(download) = &self.transfer.phase else { return };
        if download.missing.is_empty() && download.checking.is_empty() {
            let height = download.manifest.height;
            self.transfer.phase = Phase::Installing;
            self.out.push(Output::Transfer(TransferStep::Install { height }));
        }
    }

    /// Keeps every source busy with the lowest chunks that nobody has been asked for in time.
    fn ask_chunks(&mut self, target: &CheckpointCertificate) {
        let mut sources = self.transfer_sources();
        let now_ms = self.now_ms;
        let Phase::Chunks(download) = &self.transfer.phase else { return };
        let root = download.root;
        if self.is_outdated() {
            sources.retain(|id| !self.transfer.is_late(*id, now_ms));
        }
        if sources.is_empty() {
            return self.reconsider(root, target);
        }
        let free =
            |id: &ReplicaId| OUTSTANDING_MAX.saturating_sub(self.transfer.outstanding(*id, now_ms));
        let mut slots: Vec<(ReplicaId, usize)> =
            sources.iter().map(|id| (*id, free(id))).filter(|(_, free)| *free > 0).collect();
        let capacity: usize = slots.iter().map(|(_, free)| *free).sum();
        let under_way = self.transfer.under_way(now_ms);
        let wanted: Vec<u32> = download
            .missing
            .iter()
            .copied()
            .filter(|number| !under_way.contains(number))
            .take(capacity)
            .collect();
        for number in wanted {
            let unasked = |(id, free): &(ReplicaId, usize)| {
                let asked = self.transfer.asked.get(&(*id, number));
                *free > 0 && asked.is_none_or(|it| it.answered || now_ms >= it.until_ms)
            };
            let Some(at) = slots.iter().position(unasked) else { continue };
            let (peer, _) = slots[at];
            slots[at].1 -= 1;
            slots.rotate_left(at + 1);
            let asked = Asked { until_ms: now_ms + ANSWER_MS, answered: false };
            self.transfer.asked.insert((peer, number), asked);
            self.tell(peer, Message::GetChunk { root, number });
        }
    }

    pub(super) fn on_chunk(
        &mut self,
        peer: ReplicaId,
        (root, number): (Digest, u32),
        bytes: Option<Bytes>,
    ) {
        let wanted = self.transfer.root() == Some(root);
        let asked = self.transfer.asked.get_mut(&(peer, number)).filter(|_| wanted);
        let Some(asked) = asked else {
            return match &self.transfer.phase {
                Phase::Chunks(of) if wanted && number as usize >= of.manifest.chunks.len() => {
                    self.ban(peer, "a chunk that its manifest does not name")
                }
                // Of a transfer that ended, or an earlier process of this replica asked: not looked at.
                _ => self.waste(peer),
            };
        };
        if core::mem::replace(&mut asked.answered, true) {
            return;
        }
        self.transfer.late.remove(&peer);
        let Phase::Chunks(download) = &mut self.transfer.phase else { return };
        let Some(bytes) = bytes else {
            self.transfer.lacking.insert(peer);
            return;
        };
        if !download.missing.contains(&number) {
            return;
        }
        let length = download.manifest.chunks.get(number as usize).map(|entry| entry.length);
        if length.map(|length| length as usize) != Some(bytes.len()) {
            self.counters.chunks_refused += 1;
            return self.ban(peer, "a chunk of another length than its manifest names");
        }
        download.missing.remove(&number);
        download.checking.insert(number);
        self.out.push(Output::Transfer(TransferStep::Store { number, peer, bytes }));
    }

    /// What was asked of a peer whose link broke does not come in time.
    pub(super) fn transfer_peer_down(&mut self, peer: ReplicaId) {
        let now_ms = self.now_ms;
        for (_, asked) in self.transfer.asked.range_mut((peer, 0)..=(peer, u32::MAX)) {
            asked.until_ms = asked.until_ms.min(now_ms.saturating_sub(LATE_MS));
        }
        if let Phase::Manifest(_, asked) = &mut self.transfer.phase
            && asked.is_some_and(|(of, _)| of == peer)
        {
            *asked = None;
        }
    }

    /// The page asked for is erased at a peer; the certificate says what to use instead.
    pub(super) fn on_erased(
        &mut self,
        peer: ReplicaId,
        from: Height,
        certificate: CheckpointCertificate,
    ) {
        if !self.page_asked_of(peer) {
            return;
        }
        let shown = certificate.id.height;
        self.on_checkpoint_certificate(peer, certificate);
        // Only a certificate that held may set the target aside from blocks.
        if self.checkpoints.stable_height() >= shown && from > self.blocks.committed.height {
            self.transfer.erased_at = Some(from);
        }
    }

    pub(super) fn transfer_deadline(&self) -> Option<u64> {
        let retry = matches!(self.transfer.phase, Phase::Idle).then_some(self.transfer.retry_ms);
        let manifest = match &self.transfer.phase {
            Phase::Manifest(_, Some((_, until_ms))) => Some(*until_ms),
            _ => None,
        };
        let open = || self.transfer.asked.values().filter(|asked| !asked.answered);
        let late = open().map(|asked| asked.until_ms);
        let again = open().map(|asked| asked.until_ms + LATE_MS);
        let all = retry.into_iter().chain(manifest).chain(late).chain(again);
        all.filter(|at| *at > self.now_ms).min()
    }
}
