//! The loop: take what happened, tell the core, carry out what it asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::chain::{Attestation, CheckpointCertificate, Evidence, Op, Record};
use crate::codec::Encode;
use crate::crypto::Scheme;
use crate::net::NetEvent;
use crate::node::admit::{Admission, REQUEST_TIMEOUT_MS};
use crate::node::bulk::{BulkJob, SendFrame, lane_of};
use crate::node::checkpoint::CheckpointJob;
use crate::node::clock::Clock;
use crate::node::event::Event;
use crate::node::execute::Executor;
use crate::node::gates::Gates;
use crate::node::halt::{EXIT_HALTED, EXIT_LOG_FAILED, halt};
use crate::node::handle::Signals;
use crate::node::intake::Intake;
use crate::node::lie::Liar;
use crate::node::members::Members;
use crate::node::metrics::Meters;
use crate::node::pending::Pending;
use crate::node::persist::Persist;
use crate::node::prune::PruneJob;
use crate::node::reopen::Ended;
use crate::node::stable::Stable;
use crate::node::transfer::TransferJob;
use crate::node::{NodeError, NodeStatus};
use crate::ordering::{Core, Input, Message, Mode, Output, Recipients};
use crate::types::{Epoch, Millis, ReplicaId, View};

/// Events taken in one turn. Frames among them only queue, and are bounded by what peers may have
/// unsettled: a flood in front must not hide what is behind it.
const EVENTS_PER_TURN: usize = 16_384;
/// Bundles of this replica that may be unexecuted at once (consensus.md 9).
const BUNDLES_OUTSTANDING: u64 = 4;

const STATUS_INTERVAL_MS: u64 = 50;

/// So long a stopping primary waits for the next one; then the others find out by themselves.
const HAND_OVER_MS: u64 = 1000;

/// One replica's protocol thread.
pub(super) struct Replica {
    pub(super) members: Members,
    /// Signs as this replica.
    pub(super) scheme: Arc<dyn Scheme>,
    pub(super) core: Core,
    pub(super) admission: Admission,
    pub(super) pending: Pending,
    pub(super) gates: Gates<(Recipients, Message)>,
    pub(super) persist: Persist,
    pub(super) executor: Executor,
    pub(super) send: SendFrame,
    pub(super) evidence: Sender<Arc<Evidence>>,
    pub(super) liar: Option<Liar>,
    pub(super) intake: Intake,
    pub(super) complained_ms: u64,
    pub(super) bulk: Sender<BulkJob>,
    pub(super) transfers: Sender<TransferJob>,
    pub(super) clock: Clock,
    pub(super) status: Arc<RwLock<NodeStatus>>,
    pub(super) signals: Arc<Signals>,
    pub(super) meters: Meters,
    pub(super) applied: watch::Sender<i64>,
    pub(super) certified: watch::Sender<Option<CheckpointCertificate>>,
    pub(super) barriers: Vec<oneshot::Sender<Result<(), NodeError>>>,
    pub(super) bundles: BTreeMap<u64, u64>,
    pub(super) outputs: Vec<Output>,
    pub(super) quarantined: Option<String>,
    pub(super) fenced: Option<String>,
    /// Why it serves no key while it catches up after a repair.
    pub(super) healing: Option<String>,
    /// Peers whose link stands.
    pub(super) up: BTreeSet<ReplicaId>,
    pub(super) ended: Ended,
    /// Tells the threads to give up what takes long.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) joins: Vec<JoinHandle<()>>,
    pub(super) status_at_ms: u64,
    /// Where the core was when its status was last published.
    pub(super) place: (Epoch, View, Mode),
    pub(super) stable: Stable,
    /// The segment that records go to: its first one is durable.
    pub(super) open_segment: u32,
    /// When to stop although the lead is not handed over yet.
    pub(super) stop_at_ms: Option<u64>,
}

impl Replica {
    /// The first step: what asks for this replica's status afterwards finds no younger one.
    pub(super) fn begin(&mut self) {
        self.advance_time();
        self.carry_out();
        self.persist.flush();
        self.publish();
    }

    /// Runs until it is told to stop or to start over, or until every sender is gone.
    pub(super) fn run(&mut self, events: &Receiver<Event>) -> Ended {
        self.advance_time();
        loop {
            self.carry_out();
            self.admit();
            self.carry_out();
            self.persist.flush();
            self.publish_status();
            // Others should not have to find out that their primary is gone.
            let late = |at: u64| self.clock.mono_ms() >= at;
            if self.stop_at_ms.is_some_and(|at| late(at) || !self.core.is_handing_over()) {
                break;
            }
            let pause = self.pause();
            match events.recv_timeout(pause) {
                Ok(event) => {
                    self.advance_time();
                    if !self.take(event) {
                        break;
                    }
                    if !events.try_iter().take(EVENTS_PER_TURN).all(|event| self.take(event)) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.advance_time(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.take_frames();
        }
        // Starting over, what was admitted may still be executed: unknown, as after a time-out.
        let ended = core::mem::replace(&mut self.ended, Ended::Stopped);
        let stopped = matches!(ended, Ended::Stopped);
        self.pending.fail_all(if stopped { NodeError::Stopped } else { NodeError::Timeout });
        ended
    }

    /// Ends all threads behind this one; the log and what else they were given is on disk then: a state
    /// that is installed next is opened with the epoch proofs in it. The peers whose link stands.
    pub(super) fn close(self) -> BTreeSet<ReplicaId> {
        let Self { persist, executor, bulk, transfers, stop, joins, up, .. } = self;
        stop.store(true, Ordering::Relaxed);
        persist.close();
        drop((executor, bulk, transfers));
        for thread in joins {
            // A thread that panicked has ended the process, or was one that can be spared.
            drop(thread.join());
        }
        up
    }

    /// Tells a new core of the links that stand.
    pub(super) fn greet(&mut self, up: BTreeSet<ReplicaId>) {
        self.advance_time();
        for peer in up {
            self.take(Event::Net(NetEvent::Up(peer)));
        }
    }

    fn pause(&mut self) -> Duration {
        let now = self.clock.mono_ms();
        let frames = self.intake.wait_ms(now).map_or(u64::MAX, |wait| now + wait);
        let core = self.core.next_deadline().unwrap_or(now + 1000);
        let next = core.min(self.status_at_ms + STATUS_INTERVAL_MS);
        let next = next.min(self.stop_at_ms.unwrap_or(next)).min(frames);
        Duration::from_millis(next.saturating_sub(now))
    }

    pub(super) fn step(&mut self, input: Input) {
        self.core.step(input, &mut self.outputs);
    }

    fn advance_time(&mut self) {
        self.step(Input::Wall { unix_ms: self.clock.unix_ms() });
        self.step(Input::Tick { mono_ms: self.clock.mono_ms() });
    }

    /// False to end at once.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Request(request) => match self.closed() {
                Some(_) => drop(request.reply.send(Err(NodeError::Corrupt))),
                None if self.core.is_fenced() => {
                    drop(request.reply.send(Err(NodeError::NoLeader)));
                }
                None => {
                    let mut request = request;
                    self.attest(&mut request.op);
                    self.admission.queue(request);
                }
            },
            Event::Barrier(waiter) => match self.closed() {
                Some(_) => drop(waiter.send(Err(NodeError::Corrupt))),
                None => self.barriers.push(waiter),
            },
            Event::Net(NetEvent::Up(peer)) => {
                self.up.insert(peer);
                self.members.linked_ms.insert(peer, self.clock.mono_ms());
                self.step(Input::PeerUp { peer });
            }
            Event::Net(NetEvent::Down(peer)) => {
                self.up.remove(&peer);
                self.members.linked_ms.remove(&peer);
                self.step(Input::PeerDown { peer });
            }
            Event::Repair(begun) => return !self.begin_repair(begun),
            Event::Net(NetEvent::Frame(peer, frame, receipt)) => {
                self.intake.push(peer, frame, receipt);
            }
            Event::Durable(position, end) => {
                self.persist.durable();
                self.persist.appender().durable(position);
                self.executor.durable(position, end);
                drop(self.bulk.send(BulkJob::Advance(end)));
                for (to, message) in self.gates.open(position) {
                    self.send(to, &message);
                }
                self.step(Input::Durable { position });
                self.stable.durable(position);
                self.open_segment = end.segment;
                self.prune();
            }
            Event::Checkpointed(done) => {
                if let Some(id) = self.executor.checkpointed(done, self.persist.appender()) {
                    self.stable.built(id.height);
                    self.step(Input::CheckpointBuilt { id });
                    self.prune();
                }
            }
            Event::Transfer(event) => self.step(Input::Transfer(event)),
            Event::Transferred(done) => {
                self.ended = Ended::Install(done);
                return false;
            }
            Event::Damaged(reason) => self.step(Input::Damaged { reason }),
            Event::LogFailed(why) => halt(EXIT_LOG_FAILED, &format!("the log failed: {why}")),
            Event::Lie => {
                let now = self.clock.mono_ms();
                if let Some(liar) = &mut self.liar {
                    liar.begin(now);
                }
            }
            Event::HandOver => self.step(Input::HandOver),
            Event::Stop => {
                self.stop_at_ms = Some(self.clock.mono_ms() + HAND_OVER_MS);
                self.step(Input::HandOver);
            }
        }
        true
    }

    /// Has erased what a newly stable checkpoint makes needless.
    fn prune(&mut self) {
        let Some((stable, horizon)) = self.stable.take() else { return };
        let (open, time_ms) = (self.open_segment, self.executor.time_ms());
        let job = CheckpointJob::Prune(PruneJob { stable, horizon, open, time_ms });
        drop(self.executor.checkpoints.send(job));
    }

    /// Signs what waits into bundles, and asks one question for all barriers that wait.
    fn admit(&mut self) {
        if !self.barriers.is_empty() {
            let id = self.pending.ask(core::mem::take(&mut self.barriers));
            self.step(Input::ReadRequest { id });
        }
        if !self.core.admits_requests() {
            return;
        }
        if self.admission.open_session(self.core.own_rejoins()) {
            self.pending.fail_ops(NodeError::Timeout);
            self.bundles.clear();
        }
        let oldest = self.pending.oldest();
        self.bundles.retain(|end, _| oldest.is_some_and(|oldest| oldest < *end));
        while self.admission.queued() > 0
            && self.bundles.len() as u64 <= BUNDLES_OUTSTANDING
            && self.closed().is_none()
        {
            let not_after = self.not_after();
            let Some(bundle) =
                self.admission.next_bundle(&mut self.pending, not_after, self.core.parameters())
            else {
                break;
            };
            self.bundles.insert(bundle.end_seq(), bundle.first_seq);
            self.step(Input::Submit { bundle });
        }
    }

    fn not_after(&self) -> Millis {
        self.clock.unix_ms().max(self.executor.time_ms()).plus(REQUEST_TIMEOUT_MS)
    }

    /// Carries out outputs, in order, until none is left; executing feeds the core again.
    fn carry_out(&mut self) {
        while !self.outputs.is_empty() {
            for output in core::mem::take(&mut self.outputs) {
                self.carry_out_one(output);
            }
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::Append { position, record } => {
                let placed = self.persist.append(position, &record);
                if let Record::CheckpointStable(certificate) = &record {
                    self.stable.appended(position, certificate.id.height);
                    self.certified.send_replace(Some(certificate.clone()));
                }
                self.executor.remember(placed, &record);
            }
            Output::Send { to, message, gate } => {
                if let Some((to, message)) = self.gates.pass(gate, (to, message)) {
                    self.send(to, &message);
                }
            }
            Output::Execute { block } => self.execute(&block),
            Output::ReadReady { id, .. } => self.pending.read_ready(id),
            Output::ReadFailed { id } => self.pending.read_failed(id),
            Output::ServeBlocks { to, from, until, instead } => {
                drop(self.bulk.send(BulkJob::Serve { to, from, until, instead }));
            }
            Output::Epoch { network, left, proof } => {
                tracing::info!(
                    event = "epoch",
                    epoch = network.membership.epoch.0,
                    members = network.membership.members.len(),
                    voters = network.membership.voters().count(),
                    "an epoch begins"
                );
                self.find_place(&network);
                self.members.follow(&network, &left, proof);
                self.meters.follow(&network);
            }
            Output::Ahead { network } => self.members.look_ahead(&network),
            Output::ServeManifest { to, root } => {
                drop(self.bulk.send(BulkJob::Manifest { to, root }));
            }
            Output::ServeChunk { to, root, number } => {
                drop(self.bulk.send(BulkJob::Chunk { to, root, number }));
            }
            Output::Transfer(step) => self.transfer(step),
            Output::Evidence(evidence) => drop(self.evidence.send(evidence)),
            Output::Alarm(alarm) => self.alarm(alarm),
            Output::Quarantine { reason } => self.quarantine(reason),
            Output::Halt { reason } => halt(EXIT_HALTED, &reason),
        }
    }

    fn execute(&mut self, block: &Arc<crate::chain::Block>) {
        if self.quarantined.is_some() {
            return;
        }
        let placed = self.persist.take_block(block.header.height, block.hash());
        let placed = placed.expect("a block is appended before it is executed");
        match self.executor.execute(block, placed) {
            Ok(outcome) => {
                self.meters.block(block.header.n_ops);
                let session = self.admission.session();
                for (of_session, seq, reply) in outcome.replies {
                    if of_session == session {
                        self.pending.answer(seq, reply);
                    }
                }
                self.applied.send_replace(outcome.revision.0);
                let (effects, next_expiry) = (outcome.effects, outcome.next_expiry);
                let network = outcome.network.map(Box::new);
                let administrators = outcome.administrators;
                self.step(Input::Executed { effects, next_expiry, network, administrators });
                if outcome.checkpoint_wanted {
                    self.executor.begin_checkpoint(self.persist.appender(), self.core.log_end());
                }
            }
            Err(error) => {
                let height = block.header.height;
                let reason = format!("block {height} could not be executed: {error}");
                // The core writes it down: the next start must know that this state is half written.
                self.step(Input::Damaged { reason });
            }
        }
    }

    fn send(&self, to: Recipients, message: &Message) {
        let frame = message.to_bytes();
        let lane = lane_of(message, &frame);
        match to {
            Recipients::One(peer) => (self.send)(peer, frame, lane),
            Recipients::Others => self.send_all(&self.members.others, message, &frame),
            Recipients::Voters => self.send_all(&self.members.voters, message, &frame),
        }
    }

    fn send_all(&self, peers: &[ReplicaId], message: &Message, frame: &Bytes) {
        let lane = lane_of(message, frame);
        let now = self.clock.mono_ms();
        let other = self.liar.as_ref().and_then(|liar| liar.other_face(message, now));
        let other = other.map(|message| message.to_bytes());
        for (at, peer) in peers.iter().enumerate() {
            let lie = other.as_ref().filter(|_| at % 2 == 1);
            (self.send)(*peer, lie.unwrap_or(frame).clone(), lane);
        }
    }

    /// The own promotion carries this replica's word for its state as it is now.
    fn attest(&self, op: &mut Op) {
        let Op::Config(change) = op else { return };
        if change.promoted() != Some(self.members.own) || change.attestation.is_some() {
            return;
        }
        let cluster_id = self.core.cluster_id();
        let (epoch, tip) = self.executor.tip();
        change.attestation =
            Some(Attestation::sign(self.members.own, epoch, tip, &cluster_id, &*self.scheme));
    }

    /// A change of the view at once: a client that was just answered in it may ask who leads.
    fn publish_status(&mut self) {
        let now = self.clock.mono_ms();
        let place = self.core.place();
        if place != self.place || now >= self.status_at_ms + STATUS_INTERVAL_MS {
            (self.place, self.status_at_ms) = (place, now);
            self.publish();
        }
    }

    fn publish(&mut self) {
        let core = self.core.status();
        self.notice_healed(&core);
        self.end_if_removed();
        self.end_if_key_rotated();
        self.signals.quarantined.store(self.closed().is_some(), Ordering::Relaxed);
        self.signals.has_leader.store(core.has_leader, Ordering::Relaxed);
        self.signals.epoch.store(core.epoch.0, Ordering::Relaxed);
        self.signals.view.store(core.view.0, Ordering::Relaxed);
        let mut status = self.status.write().unwrap_or_else(PoisonError::into_inner);
        status.core = core;
        status.pending = self.pending.ops() as u64 + self.admission.queued() as u64;
        status.log_bytes = self.persist.bytes;
        status.syncs = self.persist.syncs;
        status.quarantined = self.closed().cloned();
        status.fenced.clone_from(&self.fenced);
        let now = self.clock.mono_ms();
        let linked = self.members.linked_ms.iter();
        status.linked_ms = linked.map(|(id, since)| (*id, now.saturating_sub(*since))).collect();
        self.executor.fill(&mut status);
        self.meters.publish(&status);
    }
}
