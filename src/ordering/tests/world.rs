use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{
    Administrators, Author, Block, BlockParts, Bundle, BundleParts, Certificate,
    CheckpointCertificate, CheckpointId, ChunkEntry, ConfigChange, Effects, Entry, EpochProof,
    Evidence, Genesis, GenesisMember, Manifest, Network, Op, Ownership, Parameters, Phase, Put,
    Record, SessionWindow, Skeleton, Value, ValueSlot, Vote,
};
use crate::codec::{Decode, Encode};
use crate::crypto::{Context, Ed25519, PublicKey, Scheme, Signature, hash};
use crate::ordering::*;
use crate::types::*;

/// "Signs" with a hash keyed by the public key: fast, and nobody here forges.
struct Hashed(PublicKey);

impl Scheme for Hashed {
    fn public_key(&self) -> PublicKey {
        self.0
    }

    fn sign(&self, message: &[u8]) -> Signature {
        let digest = hash(&Context::VOTE, &[&self.0.0, message]);
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&digest.0);
        Signature(signature)
    }

    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        Self(*key).sign(message) == *signature
    }
}

pub fn scheme(id: u16) -> impl Scheme {
    Hashed(key(id))
}

pub fn governance_key(id: u16) -> Ed25519 {
    Ed25519::from_seed(&[100 + id as u8; 32])
}

pub fn key(id: u16) -> PublicKey {
    PublicKey([id as u8 + 1; 32])
}

#[derive(Clone, Default)]
pub struct Options {
    pub drop_percent: u64,
    pub leases: bool,
    /// Another than the default.
    pub tenure_blocks: Option<u32>,
    /// A replica whose wall clock is ahead by so many ms.
    pub clock_ahead: Option<(u16, u64)>,
    /// Added to every message's way.
    pub latency_ms: u64,
    /// A replica that sends its proposals so much later than it could.
    pub slow: Option<(u16, u64)>,
    /// A checkpoint at every multiple of this height; 0 for none.
    pub checkpoint_every: u64,
    /// A network of one owner, whose members these may change from the first block on.
    pub owned: Option<Administrators>,
    /// A replica that lets everybody change them.
    pub lax: Option<u16>,
}

/// What executing leaves behind: enough to see a fork, a repetition or a loss.
#[derive(Clone)]
struct State {
    height: Height,
    header: Option<crate::chain::BlockHeader>,
    roots: BTreeMap<Height, Digest>,
    windows: BTreeMap<ReplicaId, SessionWindow>,
    done: BTreeMap<(u16, u64, u64), Height>,
    network: Network,
}

fn asked(records: &[Record]) -> (Epoch, View) {
    let asked = records.iter().filter_map(|record| match record {
        Record::ViewChangeSent { epoch, view, .. } => Some((*epoch, *view)),
        _ => None,
    });
    asked.max().unwrap_or_default()
}

struct Node {
    core: Option<Core>,
    records: Vec<Record>,
    durable: usize,
    waiting: Vec<(LogPosition, Recipients, Message)>,
    state: State,
    /// The state as of some durable Effects record.
    snapshot: State,
    starts: u8,
    /// The highest view it asked for: it votes in none below.
    asked: (Epoch, View),
    /// Whom it links to, as its newest [`Output::Epoch`] says.
    members: Vec<u16>,
    voters: Vec<u16>,
    epochs: Vec<EpochProof>,
    key: PublicKey,
    session: u64,
    next_seq: u64,
    cut: bool,
    equivocates: bool,
    /// Its VIEW-CHANGEs quote nothing.
    forgets: bool,
    /// Values of blocks up to here are gone from its log.
    erased: Height,
    /// What the test sends in its name may be proof against it.
    blamed: bool,
    diverges: bool,
    reads: BTreeMap<u64, Height>,
    quarantined: bool,
    /// Its log was taken away or replaced by an older one.
    lost: bool,
    /// It was none of those that began: nothing tells it from one that lost its disk.
    joined: bool,
    fences: u32,
    /// Requests that wait until it admits any.
    queued: VecDeque<Option<(Author, Op)>>,
    waits_for: Vec<ReplicaId>,
    votes_sent: u32,
    may_halt: bool,
    halted: Option<String>,
    /// Copies of the disk, to be put back later.
    copies: Vec<Copied>,
    /// Checkpoints on disk, and those being written with the time they are done.
    held: Vec<CheckpointId>,
    building: Vec<(u64, CheckpointId, Shelved)>,
    /// Its checkpoints' bytes are not what they should be.
    other_bytes: bool,
    /// Checkpoints it can give to others, by the root of their manifest.
    shelf: BTreeMap<Digest, Shelved>,
    /// Chunks on its disk of a checkpoint that it fetches.
    gathered: Option<(Arc<Manifest>, BTreeMap<u32, Bytes>)>,
    /// The state of an installed checkpoint: its log does not reach below.
    floor: Option<State>,
    /// How it lies to who fetches a checkpoint.
    source_lie: Option<SourceLie>,
    /// It is to start over on this state.
    installs: Option<State>,
}

/// A copy of a disk.
#[derive(Default)]
struct Copied {
    records: Vec<Record>,
    held: Vec<CheckpointId>,
    shelf: BTreeMap<Digest, Shelved>,
    floor: Option<State>,
}

/// A checkpoint that others may fetch.
#[derive(Clone)]
struct Shelved {
    manifest: Arc<Manifest>,
    chunks: Vec<Bytes>,
    state: State,
}

/// What a source of a state transfer does instead of its duty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceLie {
    WrongBytes,
    Longer,
    OtherChunk,
    Unasked,
    Silent,
    NothingHeld,
    OtherManifest,
    /// Alternates between all of the above.
    Everything,
}

/// Who begins, with which parameters.
#[derive(Clone)]
struct Founders {
    n: u16,
    ownership: Ownership,
    parameters: Parameters,
}

pub struct World {
    pub options: Options,
    pub trace: Vec<u64>,
    /// A test that sends untrue things itself.
    pub ban_expected: bool,
    /// Keep what is sent, to send it again.
    pub keep_sent: bool,
    /// Pages of this replica reach nobody.
    pub cut_feed: Option<u16>,
    sent: Vec<(u16, u16, Bytes)>,
    /// Who was told that its clock is off, and by how much.
    pub skews: Vec<(u16, i64)>,
    reads_liar: Option<u16>,
    /// How often a lying source was found out.
    pub liars_named: u64,
    /// States installed.
    pub installed: u64,
    /// Who found what about whom.
    pub proofs: Vec<(u16, ReplicaId, &'static str)>,
    nodes: Vec<Node>,
    wire: Vec<(u64, u16, u16, Bytes)>,
    now_ms: u64,
    random: u64,
    submitted: Vec<(u16, u64, u64)>,
    executed: BTreeMap<Height, Digest>,
    ledger: BTreeMap<(u16, Epoch, View, Height, Phase), Digest>,
    founders: Founders,
    /// When each epoch began anywhere, for stalls.
    pub began_ms: BTreeMap<Epoch, u64>,
    pub executed_ms: Vec<u64>,
    next_read: u64,
}

const UNIX_MS: u64 = 1_700_000_000_000;

impl World {
    /// All replicas, started at once.
    pub fn new(n: u16, seed: u64, options: Options) -> Self {
        let mut world = Self::down(n, seed, options);
        (0..n).for_each(|id| world.restart(id));
        world
    }

    /// None of them started yet.
    pub fn absent(n: u16, seed: u64) -> Self {
        Self::down(n, seed, Options::default())
    }

    fn down(n: u16, seed: u64, options: Options) -> Self {
        let default = Parameters::default();
        let tenure_blocks = options.tenure_blocks.unwrap_or(default.tenure_blocks);
        let ownership = if options.owned.is_some() { Ownership::One } else { Ownership::Many };
        let parameters = Parameters { tenure_blocks, ..default };
        let founders = Founders { n, ownership, parameters };
        Self {
            options,
            trace: Vec::new(),
            ban_expected: false,
            keep_sent: false,
            cut_feed: None,
            sent: Vec::new(),
            skews: Vec::new(),
            reads_liar: None,
            liars_named: 0,
            installed: 0,
            proofs: Vec::new(),
            nodes: (0..n).map(|id| node(id, &founders)).collect(),
            wire: Vec::new(),
            now_ms: 1,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            submitted: Vec::new(),
            executed: BTreeMap::new(),
            ledger: BTreeMap::new(),
            founders,
            began_ms: BTreeMap::new(),
            executed_ms: Vec::new(),
            next_read: 0,
        }
    }

    /// A network that has begun: every replica's first record is durable.
    pub fn begun(n: u16, seed: u64, options: Options) -> Self {
        let mut world = Self::new(n, seed, options);
        let begun = |world: &Self| world.nodes.iter().all(|node| node.durable > 0);
        assert!(world.run_while(10_000, begun), "{}", world.describe());
        world
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % end.max(1)
    }

    pub fn cores(&self) -> impl Iterator<Item = &Core> {
        self.nodes.iter().filter_map(|node| node.core.as_ref())
    }

    pub fn core(&self, id: u16) -> &Core {
        self.nodes[id as usize].core.as_ref().expect("up")
    }

    pub fn is_up(&self, id: u16) -> bool {
        self.nodes.get(id as usize).is_some_and(|node| node.core.is_some())
    }

    /// A replica that is to be added: its first process knows the network of epoch 0 alone.
    pub fn join(&mut self, id: u16) {
        assert_eq!(id as usize, self.nodes.len(), "ids follow");
        self.nodes.push(node(id, &self.founders));
        self.restart(id);
    }

    /// The newest network any replica has reached.
    pub fn network(&self) -> Network {
        let networks = self.nodes.iter().map(|node| &node.state.network);
        networks.max_by_key(|network| network.membership.epoch).expect("a replica").clone()
    }

    pub fn state_of(&self, id: u16) -> (Epoch, (Height, Digest)) {
        let state = &self.nodes[id as usize].state;
        (state.network.membership.epoch, (state.height, state.roots[&state.height]))
    }

    pub fn epochs_of(&self, id: u16) -> &[EpochProof] {
        &self.nodes[id as usize].epochs
    }

    pub fn first_network(&self) -> Network {
        network(&self.founders)
    }

    /// Has `id` sign with another key from its next start on.
    pub fn rekey(&mut self, id: u16, key: PublicKey) {
        self.kill_if_up(id);
        self.nodes[id as usize].key = key;
        self.restart(id);
    }

    pub fn kill(&mut self, id: u16) {
        let node = &mut self.nodes[id as usize];
        node.core = None;
        node.waiting.clear();
        node.building.clear();
        node.reads.clear();
        node.records.truncate(node.durable);
        // A request for a view that was lost with the unsynced end never left.
        node.asked = asked(&node.records);
        if node.snapshot.height.0.is_multiple_of(2) {
            node.state = node.snapshot.clone();
        } else if let Some(floor) = &node.floor {
            node.state = floor.clone();
        } else {
            node.state = first_state(&self.founders);
        }
        self.wire.retain(|(_, from, to, _)| *from != id && *to != id);
    }

    pub fn kill_if_up(&mut self, id: u16) {
        if self.is_up(id) {
            self.kill(id);
        }
    }

    pub fn restart(&mut self, id: u16) {
        if self.is_up(id) {
            return;
        }
        self.replay_epochs(id);
        let administrators = self.administrators(id);
        let node = &mut self.nodes[id as usize];
        node.starts += 1;
        node.session = 0;
        node.queued.clear();
        node.votes_sent = 0;
        let recovery = (!node.records.is_empty()).then(|| Recovery {
            checkpoints: node.held.clone(),
            administrators,
            session_counter: u64::from(node.starts) - 1,
            ..recovery(&node.records, &node.state)
        });
        let config = CoreConfig {
            cluster_id: CLUSTER,
            own: ReplicaId(id),
            network: node.state.network.clone(),
            epochs: node.epochs.clone(),
            first: network(&self.founders),
            scheme: Arc::new(Hashed(node.key)),
            start_nonce: [node.starts; 32],
            genesis_ms: Millis(UNIX_MS),
            genesis_root: Digest([1; 32]),
            recovery,
        };
        node.core = Some(Core::new(config));
        let now = self.now_ms;
        self.step(id, Input::Tick { mono_ms: now });
        self.step(id, Input::Wall { unix_ms: self.wall(id) });
        for peer in 0..self.nodes.len() as u16 {
            if peer != id && self.is_up(peer) {
                self.step(id, Input::PeerUp { peer: ReplicaId(peer) });
                self.step(peer, Input::PeerUp { peer: ReplicaId(id) });
            }
        }
    }

    /// What the node's replay does: no core starts below a CONFIG block that its log commits.
    fn replay_epochs(&mut self, id: u16) {
        let node = &mut self.nodes[id as usize];
        node.epochs.clear();
        let records = node.records.clone();
        let mut blocks = BTreeMap::new();
        for record in &records {
            match record {
                Record::EpochStart(proof) => {
                    let epochs = &mut self.nodes[id as usize].epochs;
                    if proof.block.header.epoch.0 == epochs.len() as u64 {
                        epochs.push(proof.clone());
                    }
                }
                Record::Block(block) => {
                    blocks.insert(block.hash(), Arc::clone(block));
                }
                Record::Committed(certificate) => {
                    let block = blocks.get(&certificate.block_hash);
                    let Some(block) = block.filter(|block| block.ends_epoch()) else { continue };
                    let node = &mut self.nodes[id as usize];
                    let (block, certificate) = (Arc::clone(block), certificate.clone());
                    let mut chain = Vec::new();
                    let mut at = Some(&block);
                    while let Some(block) = at.filter(|one| one.header.height > node.state.height) {
                        chain.push(Arc::clone(block));
                        at = blocks.get(&block.header.parent);
                    }
                    if block.header.epoch.0 == node.epochs.len() as u64 {
                        node.epochs.push(EpochProof { block: Arc::clone(&block), certificate });
                    }
                    let reaches = chain
                        .last()
                        .is_some_and(|block| block.header.height == node.state.height.next());
                    let chain = if reaches { chain } else { Vec::new() };
                    for block in chain.iter().rev() {
                        self.execute(id, block);
                    }
                }
                _ => {}
            }
        }
        let node = &mut self.nodes[id as usize];
        node.epochs.truncate(node.state.network.membership.epoch.0 as usize);
    }

    pub fn cut(&mut self, id: u16) {
        self.nodes[id as usize].cut = true;
    }

    pub fn heal(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.cut = false);
    }

    /// Hands a message to a core as if `from` had sent it.
    pub fn deliver(&mut self, from: u16, to: u16, message: Message) {
        self.step(to, Input::Recv { peer: ReplicaId(from), message });
    }

    pub fn lie_about_reads(&mut self, id: u16) {
        self.reads_liar = Some(id);
    }

    pub fn equivocate(&mut self, id: ReplicaId) {
        self.nodes[id.0 as usize].equivocates = true;
    }

    pub fn blame(&mut self, id: u16) {
        self.nodes[id as usize].blamed = true;
    }

    pub fn forget_in_view_changes(&mut self, id: u16) {
        self.nodes[id as usize].forgets = true;
    }

    fn lies(&self, id: ReplicaId) -> bool {
        let node = &self.nodes[id.0 as usize];
        node.equivocates || node.forgets || node.blamed
    }

    /// Values of blocks up to `until` are erased at a replica.
    pub fn erase(&mut self, id: u16, until: Height) {
        self.nodes[id as usize].erased = until;
    }

    pub fn write_other_checkpoints(&mut self, id: u16) {
        self.nodes[id as usize].other_bytes = true;
    }

    pub fn stable(&self, id: u16) -> Height {
        self.core(id).status().stable_checkpoint
    }

    /// The certificates a replica's log holds.
    pub fn stable_in_log(&self, id: u16) -> Vec<CheckpointCertificate> {
        let records = self.nodes[id as usize].records.iter();
        let stable = |record: &Record| match record {
            Record::CheckpointStable(certificate) => Some(certificate.clone()),
            _ => None,
        };
        records.filter_map(stable).collect()
    }

    pub fn check_certificates(&self) {
        let membership = self.network().membership;
        let q = membership.quorum().q();
        for id in 0..self.nodes.len() as u16 {
            for certificate in self.stable_in_log(id) {
                let checked = certificate.check(&Digest([8; 32]), &membership, &scheme(0), q);
                assert_eq!(checked, Ok(()), "replica {id}");
            }
        }
    }

    pub fn diverge(&mut self, id: u16) {
        self.nodes[id as usize].diverges = true;
    }

    pub fn submit(&mut self, id: u16) {
        if self.is_up(id) {
            let node = &mut self.nodes[id as usize];
            node.queued.push_back(None);
            self.admit(id);
        }
    }

    /// As the shell does: nothing is signed before the core knows its own votes, nor while fenced.
    fn admit(&mut self, id: u16) {
        let now = self.now_ms;
        loop {
            let node = &mut self.nodes[id as usize];
            let admits = node.core.as_ref().is_some_and(Core::admits_requests);
            if !admits {
                return;
            }
            let Some(op) = node.queued.pop_front() else { return };
            let rejoins = node.state.windows.get(&ReplicaId(id)).map_or(0, SessionWindow::rejoins);
            let session = rejoins << 48 | u64::from(node.starts);
            if session != node.session {
                (node.session, node.next_seq) = (session, 0);
            }
            let first_seq = node.next_seq;
            node.next_seq += 1;
            let numbers = (session, first_seq);
            let bundle = match op {
                Some((author, op)) => {
                    let skeleton = Skeleton { author, op };
                    skeleton_bundle((id, node.key), numbers, skeleton)
                }
                None => keyed_bundle((id, node.key), session, first_seq, now),
            };
            self.submitted.push((id, session, first_seq));
            self.step(id, Input::Submit { bundle });
        }
    }

    /// Keeps a copy of what the disk holds now.
    pub fn copy(&mut self, id: u16) {
        let node = &mut self.nodes[id as usize];
        let records = node.records[..node.durable].to_vec();
        let (held, shelf, floor) = (node.held.clone(), node.shelf.clone(), node.floor.clone());
        node.copies.push(Copied { records, held, shelf, floor });
    }

    /// The disk of a replica that is down is lost.
    pub fn wipe(&mut self, id: u16) {
        self.replace(id, Copied::default());
    }

    /// An old copy of the disk comes back, if there is one.
    pub fn roll_back(&mut self, id: u16) {
        if let Some(copy) = self.nodes[id as usize].copies.pop() {
            self.replace(id, copy);
        }
    }

    fn replace(&mut self, id: u16, disk: Copied) {
        let Copied { records, held, shelf, floor } = disk;
        let state = floor.clone().unwrap_or_else(|| first_state(&self.founders));
        let node = &mut self.nodes[id as usize];
        assert!(node.core.is_none(), "only a stopped replica's disk is replaced");
        node.lost = true;
        node.durable = records.len();
        node.records = records;
        (node.held, node.shelf, node.floor, node.gathered) = (held, shelf, floor, None);
        (node.state, node.snapshot) = (state.clone(), state);
        node.asked = asked(&node.records);
        // What it voted before is nobody's promise any more; what it votes from now on is.
        self.ledger.retain(|(voter, ..), _| *voter != id);
    }

    /// It was killed before its first record was durable: to others it may have lost its disk.
    pub fn lost_its_start(&mut self, id: u16) {
        let node = &mut self.nodes[id as usize];
        node.lost |= node.records.is_empty();
    }

    pub fn waits_for(&self, id: u16) -> &[ReplicaId] {
        &self.nodes[id as usize].waits_for
    }

    pub fn votes_since_restart(&self, id: u16) -> u32 {
        self.nodes[id as usize].votes_sent
    }

    pub fn starts(&self, id: u16) -> u8 {
        self.nodes[id as usize].starts
    }

    pub fn vote_of(&self, id: u16, phase: Phase, view: View, height: Height) -> Vote {
        let range = (height, vec![Digest([6; 32])]);
        let round = (phase, Epoch(0), view);
        Vote::sign(round, ReplicaId(id), range, &Digest([8; 32]), &Hashed(key(id)))
    }

    pub fn fences(&self, id: u16) -> u32 {
        self.nodes[id as usize].fences
    }

    pub fn halted(&self, id: u16) -> Option<&str> {
        self.nodes[id as usize].halted.as_deref()
    }

    pub fn expect_halt(&mut self, id: u16) {
        self.nodes[id as usize].may_halt = true;
    }

    /// Submits a change of members or parameters through `id`.
    pub fn submit_change(&mut self, id: u16, change: ConfigChange) {
        self.submit_change_as("", id, change);
    }

    /// The same in the name of a user.
    pub fn submit_change_as(&mut self, user: &'static str, id: u16, change: ConfigChange) {
        let author = Author { user: user.into(), ..Author::default() };
        self.submit_authored(id, author, Op::Config(Box::new(change)));
    }

    /// Submits an op without values, alone in its bundle.
    pub fn submit_op(&mut self, id: u16, op: Op) {
        self.submit_authored(id, Author::default(), op);
    }

    fn submit_authored(&mut self, id: u16, author: Author, op: Op) {
        if self.is_up(id) {
            let node = &mut self.nodes[id as usize];
            node.queued.push_back(Some((author, op)));
            self.admit(id);
        }
    }

    /// The proofs that were ordered, block by block, as replica `id` has them in its log.
    pub fn ordered_proofs(&self, id: u16) -> Vec<usize> {
        let blocks = self.nodes[id as usize].records.iter().filter_map(|record| match record {
            Record::Block(block) => Some(block),
            _ => None,
        });
        let proofs = |block: &Arc<Block>| block.bundles().filter_map(Bundle::proof).count();
        blocks.map(proofs).filter(|count| *count > 0).collect()
    }

    pub fn read(&mut self, id: u16) {
        self.next_read += 1;
        let acknowledged = self.executed.keys().next_back().copied().unwrap_or_default();
        let read = self.next_read;
        if self.is_up(id) {
            self.nodes[id as usize].reads.insert(read, acknowledged);
            self.step(id, Input::ReadRequest { id: read });
        }
    }

    pub fn run_ms(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.turn();
        }
    }

    /// What one replica sent to another since `keep_sent`.
    pub fn sent_to(&self, from: u16, to: u16) -> Vec<Message> {
        let sent = self.sent.iter().filter(|(sender, other, _)| (*sender, *other) == (from, to));
        let decode = |bytes: &Bytes| Message::from_bytes(bytes.clone()).expect("as it was sent");
        sent.map(|(.., bytes)| decode(bytes)).collect()
    }

    /// Delivers all that was ever sent once more, spread over half a second.
    pub fn replay_sent(&mut self) {
        self.keep_sent = false;
        for (from, to, bytes) in std::mem::take(&mut self.sent) {
            let at = self.now_ms + 1 + self.below(500);
            self.wire.push((at, from, to, bytes));
        }
    }

    fn run_while(&mut self, ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            if done(self) {
                return true;
            }
            self.turn();
        }
        done(self)
    }

    /// Until all that was submitted in sessions still alive is executed by everyone up.
    pub fn run_until_ordered(&mut self, ms: u64) -> bool {
        self.run_while(ms, |world| {
            let network = world.network().membership;
            let member = |id: u16| network.member(ReplicaId(id)).is_some();
            (0..).zip(&world.nodes).all(|(id, node)| {
                let waited_for = node.core.is_some() && !node.quarantined && member(id);
                !waited_for
                    || node.queued.is_empty()
                        && world.submitted.iter().all(|one| {
                            let alive = &world.nodes[one.0 as usize];
                            let lost =
                                alive.session != one.1 || alive.core.is_none() || !member(one.0);
                            lost || node.state.done.contains_key(one)
                        })
            })
        })
    }

    pub fn run_until_read(&mut self, ms: u64) -> bool {
        self.run_while(ms, |world| world.nodes.iter().all(|node| node.reads.is_empty()))
    }

    /// One millisecond: deliveries due, disk, ticks.
    fn turn(&mut self) {
        self.now_ms += 1;
        let now = self.now_ms;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.wire).into_iter().partition(|(at, ..)| *at <= now);
        self.wire = later;
        for (_, from, to, bytes) in due {
            let message = Message::from_bytes(bytes).expect("what was encoded decodes");
            self.step(to, Input::Recv { peer: ReplicaId(from), message });
        }
        for id in 0..self.nodes.len() as u16 {
            if let Some(state) = self.nodes[id as usize].installs.take() {
                self.install(id, state);
            }
            if self.is_up(id) {
                self.admit(id);
                if self.below(3) == 0 {
                    self.sync(id);
                }
                let due = self.core(id).next_deadline().is_some_and(|at| at <= now);
                self.step(id, Input::Tick { mono_ms: now });
                self.finish_checkpoints(id);
                if due || now.is_multiple_of(50) {
                    self.step(id, Input::Wall { unix_ms: self.wall(id) });
                }
            }
        }
    }

    fn wall(&self, id: u16) -> Millis {
        let ahead = self.options.clock_ahead.filter(|(whose, _)| *whose == id);
        Millis(UNIX_MS + self.now_ms + ahead.map_or(0, |(_, ms)| ms))
    }

    pub fn hand_over(&mut self, id: u16) {
        self.step(id, Input::HandOver);
    }

    /// What a core answers to one input that asks for no execution; nothing of it is carried out.
    pub fn outputs_of(&mut self, id: u16, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        let core = self.nodes[id as usize].core.as_mut().expect("up");
        core.step(input, &mut outputs);
        outputs
    }

    fn sync(&mut self, id: u16) {
        let node = &mut self.nodes[id as usize];
        if node.durable == node.records.len() {
            return;
        }
        node.durable = node.records.len();
        node.snapshot = node.state.clone();
        let position = LogPosition(node.durable as u64);
        let (open, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut node.waiting).into_iter().partition(|(gate, ..)| *gate <= position);
        node.waiting = held;
        for (_, to, message) in open {
            self.transmit(id, to, &message);
        }
        self.step(id, Input::Durable { position });
    }

    fn step(&mut self, id: u16, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(core) = self.nodes[id as usize].core.as_mut() else { return };
            let mut outputs = Vec::new();
            core.step(input, &mut outputs);
            for output in outputs {
                self.carry_out(id, output, &mut inputs);
            }
        }
    }

    fn alarm(&mut self, id: u16, alarm: Alarm) {
        let node = &mut self.nodes[id as usize];
        match alarm {
            Alarm::AwaitsVoters { missing, .. } => node.waits_for = missing,
            Alarm::Joining => assert!(node.joined, "replica {id} was there from the start"),
            Alarm::Rejoined { .. } => {}
            Alarm::RollbackDetected { reason } => {
                assert!(node.lost, "replica {id} lost nothing: {reason}");
                node.fences += 1;
            }
            Alarm::ClockSkew { ahead_ms } => self.skews.push((id, ahead_ms)),
            alarm => assert!(self.ban_expected, "unexpected {alarm:?}"),
        }
    }

    fn carry_out(&mut self, id: u16, output: Output, inputs: &mut VecDeque<Input>) {
        if let Output::Alarm(Alarm::BadPeer { peer, .. }) = &output
            && self.nodes[peer.0 as usize].source_lie.is_some()
        {
            return self.liars_named += 1;
        }
        let node = &mut self.nodes[id as usize];
        match output {
            Output::Append { position, record } => {
                if let Record::ViewChangeSent { epoch, view, .. } = &record {
                    node.asked = (*epoch, *view);
                }
                node.records.push(record);
                assert_eq!(position.0, node.records.len() as u64, "positions have no gap");
            }
            Output::Send { to, message, gate } => {
                if let Message::Votes(votes) = &message {
                    let late = votes.iter().all(|vote| (vote.epoch, vote.view) >= node.asked);
                    assert!(late, "replica {id} votes in a view it left");
                }
                if gate.0 as usize <= node.durable {
                    self.transmit(id, to, &message);
                } else {
                    node.waiting.push((gate, to, message));
                }
            }
            Output::Execute { block } => {
                let input = self.execute(id, &block);
                inputs.push_back(input);
            }
            Output::ReadReady { id: read, height } => {
                let acknowledged = node.reads.remove(&read).expect("asked once, answered once");
                assert!(node.state.height >= height, "executed before it is answered");
                assert!(height >= acknowledged, "a read missed height {acknowledged}");
            }
            Output::ReadFailed { id: read } => {
                node.reads.remove(&read);
            }
            Output::ServeBlocks { to, from, until, instead } => {
                if let Some(message) = self.page_of(id, from, until).or(instead.map(|it| *it)) {
                    self.transmit(id, Recipients::One(to), &message);
                }
            }
            Output::Epoch { network, left, proof } => {
                let id_of = |member: &crate::chain::Member| member.id.0;
                node.members = network.membership.members.iter().map(id_of).collect();
                node.members.extend(left.iter().map(|(id, _)| id.0));
                node.voters = network.membership.voters().map(id_of).collect();
                let known = node.epochs.len() as u64;
                node.epochs.extend(proof.filter(|_| network.membership.epoch.0 > known));
                self.began_ms.entry(network.membership.epoch).or_insert(self.now_ms);
            }
            Output::Ahead { .. } => {}
            Output::Evidence(evidence) => self.proven(id, &evidence),
            Output::Alarm(alarm) => self.alarm(id, alarm),
            Output::ServeManifest { to, root } => self.serve_manifest(id, to, root),
            Output::ServeChunk { to, root, number } => self.serve_chunk(id, to, (root, number)),
            Output::Transfer(step) => self.transfer(id, step, inputs),
            Output::Quarantine { reason } => {
                assert!(node.diverges || node.other_bytes, "{reason}");
                node.quarantined = true;
            }
            Output::Halt { reason } => {
                assert!(node.may_halt, "{reason}");
                node.halted = Some(reason);
            }
        }
    }

    fn proven(&mut self, id: u16, evidence: &Evidence) {
        for accused in evidence.accused() {
            assert!(self.lies(accused), "{accused} is correct");
            self.proofs.push((id, accused, evidence.kind().name()));
        }
    }

    fn execute(&mut self, id: u16, block: &Arc<Block>) -> Input {
        let node = &mut self.nodes[id as usize];
        let height = block.header.height;
        assert_eq!(height, node.state.height.next(), "heights without a gap");
        let known = *self.executed.entry(height).or_insert(block.hash());
        assert_eq!(known, block.hash(), "replica {id} forks at {height}");
        for entry in &block.entries {
            if let Entry::Rejoin(rejoin) = entry {
                let window = node.state.windows.entry(rejoin.replica).or_default();
                assert!(window.rejoin(&rejoin.nonce, block.header.time_ms), "admitted by all");
            }
        }
        for bundle in block.bundles() {
            let window = node.state.windows.entry(bundle.origin).or_default();
            for seq in bundle.first_seq..bundle.end_seq() {
                if window.mark(bundle.session, seq) {
                    let op = (bundle.origin.0, bundle.session, seq);
                    assert!(node.state.done.insert(op, height).is_none(), "{op:?} ran twice");
                }
            }
        }
        if !self.executed_ms.contains(&self.now_ms) {
            self.executed_ms.push(self.now_ms);
        }
        let next = block.config_change().filter(|_| block.ends_epoch()).map(|change| {
            let next = node.state.network.change(change, &block.header);
            Box::new(next.expect("what q voters accepted can be made"))
        });
        if let Some(next) = &next {
            node.state.network = next.as_ref().clone();
        }
        let before = node.state.roots[&height.minus(1)];
        let twist: &[u8] = if node.diverges { b"x" } else { b"" };
        let root = hash(&Context::EXEC_ROOT, &[&before.0, &block.hash().0, twist]);
        node.state.roots.insert(height, root);
        node.state.height = height;
        node.state.header = Some(block.header.clone());
        let every = self.options.checkpoint_every;
        if every > 0 && height.0.is_multiple_of(every) {
            let shelved = checkpoint_of(&node.state, node.other_bytes);
            let id = CheckpointId {
                height,
                block_hash: block.hash(),
                exec_root: root,
                manifest_root: shelved.manifest.root(),
            };
            node.building.push((self.now_ms + 5 + self.random % 40, id, shelved));
        }
        self.trace.push(height.0 ^ u64::from(id) << 32 ^ self.now_ms << 40);
        let next_expiry = self.options.leases.then(|| Millis(block.header.time_ms.0 + 3_600_000));
        let effects = Effects { height, exec_root: root, changes: Vec::new() };
        let administrators = self.administrators(id);
        Input::Executed { effects, next_expiry, network: next, administrators }
    }

    /// Who may change members, as this replica has it.
    fn administrators(&self, id: u16) -> Administrators {
        let owned = self.options.owned.as_ref().filter(|_| self.options.lax != Some(id));
        owned.cloned().unwrap_or_default()
    }

    fn finish_checkpoints(&mut self, id: u16) {
        let now = self.now_ms;
        let node = &mut self.nodes[id as usize];
        let (done, later) = std::mem::take(&mut node.building)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, ..)| *at <= now);
        node.building = later;
        for (_, built, shelved) in done {
            self.nodes[id as usize].held.push(built);
            self.nodes[id as usize].shelf.insert(built.manifest_root, shelved);
            self.step(id, Input::CheckpointBuilt { id: built });
        }
    }

    fn transmit(&mut self, from: u16, to: Recipients, message: &Message) {
        self.note_votes(from, message);
        let ids: Vec<u16> = match to {
            Recipients::One(id) => vec![id.0],
            Recipients::Others => self.nodes[from as usize].members.clone(),
            Recipients::Voters => self.nodes[from as usize].voters.clone(),
        };
        let there = |id: &u16| *id != from && (*id as usize) < self.nodes.len();
        let ids: Vec<u16> = ids.into_iter().filter(there).collect();
        for id in ids {
            let lost = self.below(100) < self.options.drop_percent;
            let cut = self.nodes[from as usize].cut || self.nodes[id as usize].cut;
            let slow = self.options.slow.filter(|(whose, _)| *whose == from);
            let proposal = matches!(message, Message::PrePrepare { .. });
            let late = slow.filter(|_| proposal).map_or(0, |(_, ms)| ms);
            let at = self.now_ms + 1 + self.below(6) + self.options.latency_ms + late;
            let page = matches!(message, Message::Blocks { .. });
            let cut = cut || page && self.cut_feed == Some(from);
            if lost || cut || !self.is_up(id) {
                continue;
            }
            let mut message = message.clone();
            if let Message::VotesAnswer(answer) = &mut message
                && self.nodes[id as usize].blamed
            {
                // The test speaks with its key; it is not to find that out.
                answer.votes = ShownVotes::default();
            }
            if let Message::ReadAnswer(answer) = &mut message
                && self.reads_liar == Some(from)
            {
                answer.mark = Height(1 << 62);
            }
            if let Message::ViewChange(honest) = &message
                && self.nodes[from as usize].forgets
            {
                let round = (honest.epoch, honest.view);
                let forgetful = ViewChange::sign(
                    round,
                    honest.replica,
                    (None, None, None),
                    &Digest([8; 32]),
                    &Hashed(key(from)),
                );
                message = Message::ViewChange(Arc::new(forgetful));
            }
            if self.nodes[from as usize].equivocates && id % 2 == 1 {
                message = second_face(from, message);
            }
            let bytes = message.to_bytes();
            if self.keep_sent {
                self.sent.push((from, id, bytes.clone()));
            }
            self.wire.push((at, from, id, bytes));
        }
    }

    pub fn lie_as_source(&mut self, id: u16, lie: SourceLie) {
        self.nodes[id as usize].source_lie = Some(lie);
    }

    pub fn tell_the_truth(&mut self, id: u16) {
        self.nodes[id as usize].source_lie = None;
    }

    /// A replica's checkpoints below its newest are gone.
    pub fn drop_older_checkpoints(&mut self, id: u16) {
        let shelf = &mut self.nodes[id as usize].shelf;
        let newest = shelf.values().map(|one| one.manifest.height).max();
        shelf.retain(|_, one| Some(one.manifest.height) == newest);
    }

    pub fn chunks_gathered(&self, id: u16) -> usize {
        self.nodes[id as usize].gathered.as_ref().map_or(0, |(_, chunks)| chunks.len())
    }

    /// What a peer of this replica is sent that asks for blocks.
    pub fn page_of(&self, id: u16, from: Height, until: Height) -> Option<Message> {
        let node = &self.nodes[id as usize];
        page(&node.records, from, until).filter(|_| from > node.erased)
    }

    /// The heights that this replica's log holds a commit certificate of, ascending.
    pub fn certified_in_log(&self, id: u16) -> Vec<Height> {
        let certified = |record: &Record| match record {
            Record::Committed(certificate) => Some(certificate.height),
            _ => None,
        };
        self.nodes[id as usize].records.iter().filter_map(certified).collect()
    }

    /// How many blocks it executed itself: what it fetched as a state is not among them.
    pub fn blocks_in_log(&self, id: u16) -> usize {
        let records = self.nodes[id as usize].records.iter();
        records.filter(|record| matches!(record, Record::Block(_))).count()
    }

    fn lie_of(&mut self, id: u16) -> Option<SourceLie> {
        use SourceLie::{
            Longer, NothingHeld, OtherChunk, OtherManifest, Silent, Unasked, WrongBytes,
        };
        let lie = self.nodes[id as usize].source_lie?;
        if lie != SourceLie::Everything {
            return Some(lie);
        }
        let all = [WrongBytes, Longer, OtherChunk, Unasked, Silent, NothingHeld, OtherManifest];
        let at = self.below(all.len() as u64) as usize;
        Some(all[at])
    }

    fn serve_manifest(&mut self, id: u16, to: ReplicaId, root: Digest) {
        let held = self.nodes[id as usize].shelf.get(&root).cloned();
        let lie = self.lie_of(id);
        let content = held.map(|held| {
            let mut manifest = (*held.manifest).clone();
            if lie == Some(SourceLie::OtherManifest) {
                manifest.chunks.truncate(1);
            }
            (held.state.header.clone().expect("executed"), Arc::new(manifest))
        });
        let content = content.filter(|_| lie != Some(SourceLie::NothingHeld));
        if lie != Some(SourceLie::Silent) {
            self.transmit(id, Recipients::One(to), &Message::Manifest { root, content });
        }
    }

    fn serve_chunk(&mut self, id: u16, to: ReplicaId, (root, number): (Digest, u32)) {
        let held = self.nodes[id as usize].shelf.get(&root);
        let chunks = held.map(|held| held.chunks.clone()).unwrap_or_default();
        let mut bytes = chunks.get(number as usize).cloned();
        let mut sent_as = number;
        match self.lie_of(id) {
            Some(SourceLie::WrongBytes) => {
                bytes = bytes.map(|bytes| Bytes::from(vec![0xee; bytes.len()]));
            }
            Some(SourceLie::Longer) => bytes = bytes.map(|_| Bytes::from(vec![0; 1 << 16])),
            Some(SourceLie::OtherChunk) => {
                bytes = chunks.get((number as usize + 1) % chunks.len().max(1)).cloned();
            }
            Some(SourceLie::Unasked) => sent_as = number.wrapping_add(1000),
            Some(SourceLie::NothingHeld) => bytes = None,
            Some(SourceLie::Silent) => return,
            _ => {}
        }
        let message = Message::Chunk { root, number: sent_as, bytes };
        self.transmit(id, Recipients::One(to), &message);
    }

    fn transfer(&mut self, id: u16, step: TransferStep, inputs: &mut VecDeque<Input>) {
        let node = &mut self.nodes[id as usize];
        match step {
            TransferStep::Begin { manifest, .. } => {
                let kept = node.gathered.take().filter(|(of, _)| of.root() == manifest.root());
                let chunks = kept.map(|(_, chunks)| chunks).unwrap_or_default();
                let (root, held) = (manifest.root(), chunks.keys().copied().collect());
                node.gathered = Some((manifest, chunks));
                inputs.push_back(Input::Transfer(TransferEvent::Begun { root, held }));
            }
            TransferStep::Store { number, peer, bytes } => {
                let (manifest, chunks) = node.gathered.as_mut().expect("begun");
                let root = manifest.root();
                let entry = manifest.chunks[number as usize];
                assert_eq!(entry.length as usize, bytes.len(), "lengths are checked by the core");
                let sound = ChunkEntry::of(&bytes) == entry;
                if sound {
                    chunks.insert(number, bytes);
                }
                let stored = TransferEvent::Stored { root, number, peer, sound };
                inputs.push_back(Input::Transfer(stored));
            }
            TransferStep::Install { height } => {
                let (manifest, chunks) = node.gathered.take().expect("begun");
                assert_eq!(chunks.len(), manifest.chunks.len(), "installed with chunks missing");
                assert_eq!(height, manifest.height);
                let shelves = self.nodes.iter().find_map(|node| node.shelf.get(&manifest.root()));
                let state = shelves.expect("somebody made it").state.clone();
                assert_eq!(state.roots[&height], manifest.exec_root, "certified by a quorum");
                self.nodes[id as usize].installs = Some(state);
            }
            TransferStep::Abandon => {}
        }
    }

    /// Starts over on a transferred state, as the shell does: the log stays, as far as it is on disk.
    fn install(&mut self, id: u16, state: State) {
        if !self.is_up(id) {
            return;
        }
        self.kill(id);
        self.installed += 1;
        let node = &mut self.nodes[id as usize];
        assert!(state.height > node.state.height, "a checkpoint below what is executed");
        node.floor = Some(state.clone());
        node.snapshot = state.clone();
        node.state = state;
        self.restart(id);
    }

    /// One vote per (replica, view, height, phase), across restarts.
    fn note_votes(&mut self, from: u16, message: &Message) {
        let votes: Vec<Vote> = match message {
            Message::PrePrepare { prepare, .. } => vec![prepare.clone()],
            Message::Votes(votes) => votes.clone(),
            _ => Vec::new(),
        };
        self.nodes[from as usize].votes_sent += votes.len() as u32;
        for vote in votes {
            for (at, hash) in (0..).zip(&vote.signed.hashes) {
                let height = vote.signed.from_height.plus(at);
                let place = (from, vote.epoch, vote.view, height, vote.phase);
                let first = *self.ledger.entry(place).or_insert(*hash);
                assert_eq!(first, *hash, "{place:?} was voted twice");
            }
        }
    }

    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (id, node) in self.nodes.iter().enumerate() {
            let Some(core) = &node.core else {
                text += &format!("\n  {id}: down");
                continue;
            };
            let status = core.status();
            text += &format!(
                "\n  {id}: {:?} epoch {} view {} committed {} executed {} pool {} reads {} leader {:?} {:?}",
                status.mode,
                status.epoch,
                status.view,
                status.committed,
                status.executed,
                status.pool_bundles,
                node.reads.len(),
                status.primary,
                status.counters,
            );
        }
        text
    }
}

const CLUSTER: Digest = Digest([8; 32]);

/// The network of `n` founders.
fn network(founders: &Founders) -> Network {
    let member = |id: u16| GenesisMember {
        id: ReplicaId(id),
        organisation: OrgId(id),
        name: format!("org{id}"),
        key: key(id),
        governance_keys: vec![governance_key(id).public_key()],
        client_urls: vec![format!("https://127.0.0.1:{}", 2000 + id)],
        peer_address: format!("127.0.0.1:{}", 3000 + id),
    };
    Network::of(&Genesis {
        ownership: founders.ownership,
        demo: false,
        salt: [0; 32],
        created_ms: Millis(UNIX_MS),
        members: (0..founders.n).map(member).collect(),
        parameters: founders.parameters.clone(),
        initial: None,
    })
}

pub fn op_bundle(signer: (u16, PublicKey), numbers: (u64, u64), op: Op) -> Bundle {
    skeleton_bundle(signer, numbers, Skeleton { author: Author::default(), op })
}

fn skeleton_bundle((id, key): (u16, PublicKey), numbers: (u64, u64), skeleton: Skeleton) -> Bundle {
    let parts = BundleParts {
        origin: ReplicaId(id),
        session: numbers.0,
        first_seq: numbers.1,
        not_after_ms: Millis(u64::MAX),
        skeletons: vec![skeleton],
        values: Vec::new(),
    };
    Bundle::sign(parts, &CLUSTER, &Hashed(key))
}

fn first_state(founders: &Founders) -> State {
    State {
        height: Height(0),
        header: None,
        roots: BTreeMap::from([(Height(0), Digest([1; 32]))]),
        windows: BTreeMap::new(),
        done: BTreeMap::new(),
        network: network(founders),
    }
}

fn node(id: u16, founders: &Founders) -> Node {
    let state = first_state(founders);
    Node {
        core: None,
        records: Vec::new(),
        durable: 0,
        waiting: Vec::new(),
        snapshot: state.clone(),
        state,
        starts: 0,
        asked: (Epoch(0), View(0)),
        lost: false,
        joined: id >= founders.n,
        fences: 0,
        queued: VecDeque::new(),
        waits_for: Vec::new(),
        votes_sent: 0,
        may_halt: false,
        halted: None,
        copies: Vec::new(),
        members: Vec::new(),
        voters: Vec::new(),
        epochs: Vec::new(),
        key: key(id),
        session: 0,
        next_seq: 0,
        cut: false,
        equivocates: false,
        forgets: false,
        erased: Height(0),
        blamed: false,
        diverges: false,
        reads: BTreeMap::new(),
        quarantined: false,
        held: Vec::new(),
        building: Vec::new(),
        other_bytes: false,
        shelf: BTreeMap::new(),
        gathered: None,
        floor: None,
        source_lie: None,
        installs: None,
    }
}

/// A few chunks that differ from checkpoint to checkpoint, but for one.
fn checkpoint_of(state: &State, other_bytes: bool) -> Shelved {
    let root = state.roots[&state.height];
    let mut chunks: Vec<Bytes> = (1..=7_u8)
        .map(|number| Bytes::from([&root.0[..], &vec![number; usize::from(number)]].concat()))
        .collect();
    chunks.push(Bytes::from_static(b"the same in every checkpoint"));
    if other_bytes {
        chunks.push(Bytes::from_static(b"other"));
    }
    let header = state.header.as_ref().expect("executed");
    let lowest = state.height.minus(u64::from(Parameters::default().window));
    let manifest = Manifest {
        cluster_id: Digest([8; 32]),
        height: state.height,
        block_hash: header.hash(),
        exec_root: root,
        exec_roots: state.roots.range(lowest..).map(|(height, root)| (*height, *root)).collect(),
        chunks: chunks.iter().map(|chunk| ChunkEntry::of(chunk)).collect(),
    };
    Shelved { manifest: Arc::new(manifest), chunks, state: state.clone() }
}

pub fn bundle(id: u16, session: u64, first_seq: u64, now: u64) -> Bundle {
    keyed_bundle((id, key(id)), session, first_seq, now)
}

fn keyed_bundle((id, key): (u16, PublicKey), session: u64, first_seq: u64, now: u64) -> Bundle {
    let value = Value { salt: [3; 16], bytes: Bytes::from(now.to_string()) };
    let slot = ValueSlot { index: 0, commitment: value.commitment() };
    let put = Put {
        key: Bytes::from(format!("{id}/{session}/{first_seq}")),
        value: Some(slot),
        lease: LeaseId(0),
        prev_kv: false,
        ignore_lease: false,
    };
    let parts = BundleParts {
        origin: ReplicaId(id),
        session,
        first_seq,
        not_after_ms: Millis(u64::MAX),
        skeletons: vec![Skeleton { author: Author::default(), op: Op::Put(put) }],
        values: vec![value],
    };
    Bundle::sign(parts, &CLUSTER, &Hashed(key))
}

/// The same proposal a millisecond later: another block at the same height.
fn second_face(from: u16, message: Message) -> Message {
    if let Message::Votes(votes) = message {
        let other = |vote: &Vote| {
            let hashes = vote.signed.hashes.iter().map(|hash| Digest([!hash.0[0]; 32])).collect();
            let round = (vote.phase, vote.epoch, vote.view);
            let range = (vote.signed.from_height, hashes);
            Vote::sign(round, ReplicaId(from), range, &Digest([8; 32]), &Hashed(key(from)))
        };
        return Message::Votes(votes.iter().map(other).collect());
    }
    let Message::PrePrepare { block, .. } = message else { return message };
    let mut header = block.header.clone();
    header.time_ms = header.time_ms.next();
    let entries: Vec<Entry> = block.entries.clone();
    let other = BlockParts::new(entries).into_block(header);
    let round = (Phase::Prepare, other.header.epoch, other.header.view);
    let range = (other.header.height, vec![other.hash()]);
    let prepare = Vote::sign(round, ReplicaId(from), range, &Digest([8; 32]), &Hashed(key(from)));
    Message::PrePrepare { block: Arc::new(other), prepare }
}

fn recovery(records: &[Record], state: &State) -> Recovery {
    let mut recovery = Recovery {
        entered: None,
        view_change: None,
        prepared: None,
        committed: None,
        blocks: Vec::new(),
        tip: state.header.clone(),
        exec_roots: state.roots.iter().map(|(height, root)| (*height, *root)).collect(),
        windows: state.windows.clone(),
        next_expiry: None,
        administrators: Administrators::default(),
        stable: None,
        checkpoints: Vec::new(),
        quarantined: false,
        fenced: false,
        rejoined: None,
        session_counter: 0,
        seen: SeenVotes::default(),
        log_end: LogPosition(records.len() as u64),
    };
    let higher = |known: &Option<Certificate>, new: &Certificate| {
        known.as_ref().is_none_or(|known| new.rank() > known.rank())
    };
    for record in records {
        match record {
            Record::ViewEntered { epoch, view, base_height, base_hash } => {
                recovery.entered = Some((*epoch, *view, *base_height, *base_hash));
            }
            Record::ViewChangeSent { epoch, view, message } => {
                recovery.view_change = Some((*epoch, *view, message.clone()));
            }
            Record::Block(block) if block.header.height > state.height => {
                assert!(!recovery.blocks.contains(block), "a block is logged once");
                recovery.blocks.push(Arc::clone(block));
            }
            Record::Fenced { .. } => recovery.fenced = true,
            Record::Rejoined(certificate) => {
                recovery.fenced = false;
                recovery.rejoined = Some(certificate.clone());
            }
            Record::Prepared(certificate) if higher(&recovery.prepared, certificate) => {
                recovery.prepared = Some(certificate.clone());
            }
            Record::CheckpointStable(certificate) => recovery.stable = Some(certificate.clone()),
            Record::Committed(certificate) if higher(&recovery.committed, certificate) => {
                recovery.committed = Some(certificate.clone());
            }
            _ => {}
        }
    }
    recovery
}

/// What storage does: back from the certified block by parent, cut at a certified height.
fn page(records: &[Record], from: Height, until: Height) -> Option<Message> {
    let mut blocks: BTreeMap<Digest, Arc<Block>> = BTreeMap::new();
    let mut certificates: BTreeMap<Height, &Certificate> = BTreeMap::new();
    for record in records {
        match record {
            Record::Block(block) => {
                blocks.insert(block.hash(), Arc::clone(block));
            }
            Record::Committed(found) => drop(certificates.insert(found.height, found)),
            _ => {}
        }
    }
    // As the log's reader chooses.
    let inside = certificates.range(from..=until.max(from)).next_back();
    let (_, certificate) = inside.or_else(|| certificates.range(until.max(from)..).next())?;
    let certificate: Certificate = (*certificate).clone();
    let mut page = Vec::new();
    let (mut height, mut next) = (certificate.height, certificate.block_hash);
    while height >= from {
        let block = blocks.get(&next)?;
        (height, next) = (height.minus(1), block.header.parent);
        page.push(Arc::clone(block));
    }
    page.reverse();
    Some(Message::Blocks { blocks: page, certificate })
}
