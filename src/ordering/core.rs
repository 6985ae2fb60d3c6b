//! The core's parts, and how an input travels through them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chain::{Block, Membership, Parameters, Phase, Record, Vote};
use crate::crypto::Scheme;
use crate::ordering::blocks::Blocks;
use crate::ordering::budget::{Account, PAGE_COSTS};
use crate::ordering::catch_up::CatchUp;
use crate::ordering::checkpoints::Checkpoints;
use crate::ordering::epochs::Epochs;
use crate::ordering::feed::Feed;
use crate::ordering::fence::Fence;
use crate::ordering::pace::Pace;
use crate::ordering::pool::Pool;
use crate::ordering::reads::Reads;
use crate::ordering::status::Peer;
use crate::ordering::transfer::Transfer;
use crate::ordering::view::ViewState;
use crate::ordering::votes::Votes;
use crate::ordering::witness::Witness;
use crate::ordering::{Counters, Input, Message, Mode, Output, Recipients};
use crate::planted::{self, Bug};
use crate::types::{ClusterId, Digest, Height, LogPosition, Millis, Quorum, ReplicaId, View};

/// A block of the view's primary that waits for its turn.
pub(super) struct Proposal {
    pub block: Arc<Block>,
    pub prepare: Arc<Vote>,
}

/// The prefix of the log that exists, and the one that survives a crash.
pub(super) struct Log {
    pub end: LogPosition,
    pub durable: LogPosition,
}

/// One replica's ordering: a value that changes by [`Core::step`] alone.
pub struct Core {
    pub(super) cluster_id: ClusterId,
    pub(super) own: ReplicaId,
    pub(super) membership: Membership,
    pub(super) epochs: Epochs,
    pub(super) config_hash: Digest,
    pub(super) quorum: Quorum,
    pub(super) scheme: Arc<dyn Scheme>,
    /// W: pipeline window and lag of the root.
    pub(super) window: u64,
    pub(super) now_ms: u64,
    /// The wall clock and the monotonic time it was read at.
    pub(super) wall: Option<(Millis, u64)>,
    pub(super) log: Log,
    pub(super) blocks: Blocks,
    pub(super) votes: Votes,
    pub(super) view: ViewState,
    /// Bounded: views from the entered one to the one after the pending one, heights up to
    /// executed + 2W.
    pub(super) proposals: BTreeMap<(View, Height), Proposal>,
    pub(super) pool: Pool,
    pub(super) reads: Reads,
    pub(super) catch_up: CatchUp,
    pub(super) feed: Feed,
    pub(super) fence: Fence,
    pub(super) transfer: Transfer,
    pub(super) checkpoints: Checkpoints,
    pub(super) peers: BTreeMap<ReplicaId, Peer>,
    pub(super) witness: Witness,
    pub(super) accounts: BTreeMap<ReplicaId, Account>,
    /// Since when a quorum has been heard without a break; timers that accuse wait for it.
    pub(super) quorum_since_ms: Option<u64>,
    pub(super) next_status_ms: u64,
    pub(super) pace: Pace,
    /// The own clock was last seen further from the others' than D.
    pub(super) clock_is_off: bool,
    pub(super) started: bool,
    pub(super) quarantined: bool,
    pub(super) halted: bool,
    pub(super) counters: Counters,
    pub(super) out: Vec<Output>,
}

impl Core {
    /// Takes one input and appends what is to be done about it, in order.
    pub fn step(&mut self, input: Input, out: &mut Vec<Output>) {
        if self.halted {
            return;
        }
        if let Input::Tick { mono_ms } = input {
            self.now_ms = self.now_ms.max(mono_ms);
        }
        if !self.started {
            self.started = true;
            self.start();
        }
        match input {
            Input::Tick { .. } => {}
            Input::Wall { unix_ms } => self.wall = Some((unix_ms, self.now_ms)),
            Input::Durable { position } => {
                assert!(position <= self.log.end, "only what was appended becomes durable");
                self.log.durable = self.log.durable.max(position);
            }
            Input::Executed { effects, next_expiry, network, administrators } => {
                self.epochs.administrators = administrators;
                self.on_executed(effects, next_expiry, network);
            }
            Input::CheckpointBuilt { id } => self.on_checkpoint_built(id),
            Input::Submit { bundle } => self.on_submit(bundle),
            Input::ReadRequest { id } => self.on_read_request(id),
            Input::HandOver => self.hand_over(),
            Input::Damaged { reason } => self.quarantine(reason),
            Input::Transfer(event) => self.on_transfer(event),
            Input::PeerUp { peer } => self.on_peer_up(peer),
            Input::PeerDown { peer } => self.on_peer_down(peer),
            Input::Recv { peer, message } => self.on_message(peer, message),
        }
        self.advance();
        self.check_invariants();
        out.append(&mut self.out);
    }

    /// The network's identity.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// W, the window of this epoch.
    #[must_use]
    pub fn window(&self) -> usize {
        self.membership.parameters.window as usize
    }

    /// The last record's position.
    #[must_use]
    pub fn log_end(&self) -> LogPosition {
        self.log.end
    }

    /// What this epoch allows.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.membership.parameters
    }

    /// Everything that has become possible, in the order in which one thing enables the next.
    fn advance(&mut self) {
        self.watch_quorum();
        self.run_timers();
        self.leave_proven();
        if !self.quarantined {
            self.try_enter();
            self.accept_proposals();
            self.propose();
            self.cast_votes();
            self.execute_committed();
        }
        self.advance_reads();
        self.fetch_missing();
        self.follow_feed();
        self.feed_followers();
        self.advance_transfer();
    }

    pub(super) fn on_message(&mut self, peer: ReplicaId, message: Message) {
        if peer == self.own {
            return;
        }
        self.heard(peer);
        if self.is_from_outside(peer, &message) {
            return self.waste(peer);
        }
        if self.is_early(peer, &message) {
            return;
        }
        let heard = matches!(
            message,
            Message::Status(_) | Message::GetBlocks { .. } | Message::VotesQuestion { .. }
        );
        if self.quarantined && !heard {
            return;
        }
        let affordable = match message {
            Message::GetBlocks { from, until } => self.may_page(peer, from, until),
            Message::GetBody { .. } | Message::GetEpochs { .. } => self.may_serve(peer, PAGE_COSTS),
            Message::GetManifest { .. } | Message::GetChunk { .. } => self.may_serve(peer, 1),
            _ => true,
        };
        if !affordable {
            return;
        }
        match message {
            Message::PrePrepare { block, prepare } => self.on_pre_prepare(peer, block, prepare),
            Message::Votes(votes) => self.on_votes(peer, votes),
            Message::ViewChange(view_change) => self.on_view_change(peer, view_change),
            Message::NewView(new_view) => self.on_new_view(peer, new_view),
            Message::Status(status) => self.on_status(peer, status),
            Message::Certificate(certificate) => self.on_certificate(peer, certificate),
            Message::Bundle(bundle) => self.on_bundle(peer, bundle),
            Message::ReadIndex { nonce } => self.on_read_index(peer, nonce),
            Message::ReadAnswer(answer) => self.on_read_answer(peer, &answer),
            Message::ReadProof { mark } => self.on_read_proof(peer, mark),
            Message::GetBlocks { from, until } => self.on_get_blocks(peer, from, until),
            Message::Blocks { blocks, certificate } => self.on_blocks(peer, blocks, certificate),
            Message::GetBody { hash } => self.on_get_body(peer, &hash),
            Message::Body(block) => self.on_body(peer, block),
            Message::Rejoin(rejoin) => self.on_rejoin(peer, rejoin),
            Message::VotesQuestion { start_nonce } => self.on_votes_question(peer, start_nonce),
            Message::VotesAnswer(answer) => self.on_votes_answer(peer, *answer),
            Message::GetEpochs { from } => self.on_get_epochs(peer, from),
            Message::Epochs(proofs) => self.on_epochs(peer, proofs),
            Message::Checkpoint(vote) => self.on_checkpoint(peer, vote),
            Message::CheckpointCertificate(certificate) => {
                self.on_checkpoint_certificate(peer, certificate);
            }
            Message::Erased { from, certificate } => self.on_erased(peer, from, certificate),
            Message::GetManifest { root } => {
                self.out.push(Output::ServeManifest { to: peer, root });
            }
            Message::Manifest { root, content } => self.on_manifest(peer, root, content),
            Message::GetChunk { root, number } => {
                self.out.push(Output::ServeChunk { to: peer, root, number });
            }
            Message::Chunk { root, number, bytes } => self.on_chunk(peer, (root, number), bytes),
            Message::Follow { from } => self.on_follow(peer, from),
            Message::Shown(vote) => self.on_shown(peer, &vote),
            Message::Evidence(evidence) => self.on_evidence(peer, evidence.as_ref().clone()),
        }
    }

    /// Appends a record; what depends on it waits for the position.
    pub(super) fn append(&mut self, record: Record) -> LogPosition {
        self.log.end = self.log.end.next();
        self.out.push(Output::Append { position: self.log.end, record });
        self.log.end
    }

    pub(super) fn send(&mut self, to: Recipients, message: Message, gate: LogPosition) {
        // The only member is alone; who joins it, or has left it, is not: it says where it is (8.1).
        let lonely = planted::is(Bug::LonelySilence) && self.membership.members.len() == 1;
        if to == Recipients::Others && (self.peers.is_empty() || lonely) {
            return;
        }
        self.out.push(Output::Send { to, message, gate });
    }

    /// A message that promises nothing.
    pub(super) fn tell(&mut self, peer: ReplicaId, message: Message) {
        self.send(Recipients::One(peer), message, LogPosition(0));
    }

    pub(super) fn halt(&mut self, reason: String) {
        self.halted = true;
        self.out.push(Output::Halt { reason });
    }

    pub(super) fn quarantine(&mut self, reason: String) {
        if !self.quarantined {
            self.quarantined = true;
            let bytes = reason.clone().into_bytes().into();
            self.append(Record::Quarantined { reason: bytes });
            self.out.push(Output::Quarantine { reason });
        }
    }

    /// Whether this replica votes in its view. It does not if other blocks of that view were committed
    /// than it took from a lying primary; a later one is entered once its blocks are here (7.6).
    pub(super) fn is_normal(&self) -> bool {
        let astray = self.view.tip.height < self.blocks.committed.height && self.is_voter();
        self.is_in_view() && !astray
    }

    /// Whether this replica asks for no other view than its own.
    pub(super) fn is_in_view(&self) -> bool {
        self.view.pending.is_none() && !self.quarantined && self.fence.is_cleared()
    }

    /// Whether this replica votes in the epoch, by the key that the epoch knows (protocol.md 20.10).
    pub(super) fn is_voter(&self) -> bool {
        self.membership.voter(self.own).is_some() && self.has_own_key()
    }

    /// False while a replica whose key was rotated signs with the one of another epoch.
    pub(super) fn has_own_key(&self) -> bool {
        let member = self.membership.member(self.own);
        member.is_none_or(|member| member.key == self.scheme.public_key())
    }

    pub(super) fn primary(&self) -> ReplicaId {
        self.membership.primary(self.view.entered)
    }

    /// Unix time, as far as the shell has told it.
    pub(super) fn unix_now(&self) -> Option<Millis> {
        let (wall, read_at) = self.wall?;
        Some(wall.plus(self.now_ms.saturating_sub(read_at)))
    }

    pub(super) fn mode(&self) -> Mode {
        let certified = self.blocks.certificate.as_ref().map_or(Height(0), |cert| cert.height);
        if self.quarantined {
            Mode::Quarantined
        } else if let Some(mode) = self.fence_mode() {
            mode
        } else if !self.is_voter() {
            Mode::Observer
        } else if self.view.pending.is_some() {
            Mode::ViewChange
        } else if certified > self.blocks.committed.height.plus(self.window) {
            Mode::Syncing
        } else {
            Mode::Normal
        }
    }

    pub(super) fn verify_vote(&mut self, vote: &Vote) -> bool {
        self.counters.verifications += 1;
        vote.verify(&self.cluster_id, &self.membership, self.scheme.as_ref())
    }

    pub(super) fn sign_vote(&mut self, phase: Phase, from: Height, hashes: Vec<Digest>) -> Vote {
        self.counters.signatures += 1;
        let round = (phase, self.membership.epoch, self.view.entered);
        let range = (from, hashes);
        let vote = Vote::sign(round, self.own, range, &self.cluster_id, self.scheme.as_ref());
        self.fence.known.note_vote(&vote, self.primary() == self.own);
        vote
    }
}
