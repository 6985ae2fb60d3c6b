//! Four cores on a bench: one wire, disks that sync at once, execution that takes no time.

mod disturbed;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use althing::chain::{
    Administrators, Author, Block, BlockParts, Bundle, BundleParts, Certificate, Effects, Member,
    Membership, Network, Op, Ownership, Parameters, Phase, Put, Record, Skeleton, Value, ValueSlot,
    Vote,
};
use althing::crypto::{Context, Scheme, hash};
use althing::ordering::{Core, CoreConfig, Input, Message, Output, Recipients, ViewChange};
use althing::types::{Digest, Epoch, Height, LeaseId, LogPosition, Millis, OrgId, ReplicaId, View};
use bytes::Bytes;

use crate::core_search::Deviation;
use crate::sim::scheme::KeyRing;

const CLUSTER: Digest = Digest([8; 32]);
const ROOT: Digest = Digest([1; 32]);
const UNIX_MS: u64 = 1_700_000_000_000;
/// A round of healing.
const ROUND_MS: u64 = 100;
/// The longest view-change timeout and then some, twice.
const ROUNDS: usize = 300;

struct Replica {
    core: Option<Core>,
    blocks: BTreeMap<Digest, Arc<Block>>,
    committed: Option<Certificate>,
    root: Digest,
    executed: Vec<Digest>,
    /// The bundles executed, by origin.
    ordered: Vec<ReplicaId>,
    /// It votes in no view below.
    asked: View,
    mono_ms: u64,
}

/// The world of one run.
pub struct Bench {
    replicas: Vec<Replica>,
    schemes: Vec<Arc<dyn Scheme>>,
    wire: VecDeque<(u16, u16, Message)>,
    /// Only what orders blocks arrives; nobody hears a STATUS or a bundle until the network heals.
    narrow: bool,
    chain: Vec<Digest>,
    ledger: BTreeMap<(u16, View, Height, Phase), Digest>,
    liar: Option<u8>,
    /// Replica 3 says what it is told to.
    third_lies: bool,
    echoed: BTreeSet<(View, Height, Digest)>,
    seen: [bool; 3],
    /// Steps of all cores.
    pub steps: u64,
}

impl Bench {
    /// Four cores that have met, and a block on its way.
    pub fn new(liar: Option<u8>) -> Result<Self, String> {
        let secrets: Vec<[u8; 32]> = (1..=4).map(|id| [id; 32]).collect();
        let (ring, keys) = KeyRing::new(&secrets);
        let schemes: Vec<Arc<dyn Scheme>> =
            secrets.iter().map(|secret| ring.scheme(*secret)).collect();
        let member = |(id, key): (u16, _)| Member {
            id: ReplicaId(id),
            organisation: OrgId(id),
            key,
            voting: true,
        };
        let membership = Membership {
            epoch: Epoch(0),
            members: (0..4).zip(keys).map(member).collect(),
            parameters: Parameters::default(),
            first_primary: 0,
        };
        let network = Network {
            ownership: Ownership::Many,
            membership,
            organisations: BTreeMap::new(),
            addresses: BTreeMap::new(),
            reserved: BTreeMap::new(),
            next_replica: 4,
            next_organisation: 4,
        };
        let replica = |id: u16| Replica {
            core: Some(Core::new(CoreConfig {
                cluster_id: CLUSTER,
                own: ReplicaId(id),
                network: network.clone(),
                epochs: Vec::new(),
                first: network.clone(),
                scheme: Arc::clone(&schemes[usize::from(id)]),
                start_nonce: [id as u8 + 1; 32],
                genesis_ms: Millis(UNIX_MS),
                genesis_root: ROOT,
                recovery: None,
            })),
            blocks: BTreeMap::new(),
            committed: None,
            root: ROOT,
            executed: Vec::new(),
            ordered: Vec::new(),
            asked: View(0),
            mono_ms: 0,
        };
        let mut bench = Self {
            replicas: (0..4).map(replica).collect(),
            schemes,
            wire: VecDeque::new(),
            narrow: false,
            chain: Vec::new(),
            ledger: BTreeMap::new(),
            liar,
            third_lies: false,
            echoed: BTreeSet::new(),
            seen: [false; 3],
            steps: 0,
        };
        bench.meet()?;
        Ok(bench)
    }

    /// Links come up, everyone is heard; then one bundle each at the primary and at the next one.
    fn meet(&mut self) -> Result<(), String> {
        for id in 0..4 {
            self.tick(id, 1)?;
            for peer in (0..4).filter(|peer| *peer != id) {
                self.step(id, Input::PeerUp { peer: ReplicaId(peer) })?;
            }
        }
        for _ in 0..4 {
            self.deliver_all()?;
            (0..4).try_for_each(|id| self.tick(id, ROUND_MS))?;
        }
        self.deliver_all()?;
        self.narrow = true;
        for id in 0..2 {
            let bundle = self.bundle(id);
            self.step(id, Input::Submit { bundle })?;
        }
        if let Some(shown) = self.liar {
            self.two_faces(shown);
        }
        Ok(())
    }

    fn bundle(&self, id: u16) -> Bundle {
        let value = Value { salt: [3; 16], bytes: Bytes::from_static(b"value") };
        let slot = ValueSlot { index: 0, commitment: value.commitment() };
        let put = Put {
            key: Bytes::from(format!("key of {id}")),
            value: Some(slot),
            lease: LeaseId(0),
            prev_kv: false,
            ignore_lease: false,
        };
        let parts = BundleParts {
            origin: ReplicaId(id),
            session: 1,
            first_seq: 0,
            not_after_ms: Millis(u64::MAX),
            skeletons: vec![Skeleton { author: Author::default(), op: Op::Put(put) }],
            values: vec![value],
        };
        Bundle::sign(parts, &CLUSTER, self.schemes[usize::from(id)].as_ref())
    }

    /// The liar's core has made a proposal; from here on it is driven by hand.
    fn two_faces(&mut self, shown: u8) {
        self.replicas[0].core = None;
        let scheme = Arc::clone(&self.schemes[0]);
        for (from, to, message) in &mut self.wire {
            let Message::PrePrepare { block, prepare } = message else { continue };
            if *from == 0 && shown >> *to & 1 == 0 {
                let mut header = block.header.clone();
                header.time_ms = header.time_ms.next();
                let other = BlockParts::new(block.entries.clone()).into_block(header);
                let round = (Phase::Prepare, Epoch(0), View(0));
                let range = (other.header.height, vec![other.hash()]);
                *prepare = Vote::sign(round, ReplicaId(0), range, &CLUSTER, scheme.as_ref());
                *block = Arc::new(other);
            }
        }
    }

    /// Delivers everything but what the plan says; the number of deliveries.
    pub fn run(&mut self, plan: &[(usize, Deviation)]) -> Result<usize, String> {
        let mut delivered = 0;
        let mut left = plan.iter().peekable();
        while let Some((from, to, message)) = self.wire.pop_front() {
            let mut lost = false;
            let mut last = false;
            while let Some((_, deviation)) = left.next_if(|(at, _)| *at == delivered) {
                match deviation {
                    Deviation::Drop => lost = true,
                    Deviation::Last => last = true,
                    Deviation::GiveUp => self.give_up()?,
                }
            }
            delivered += 1;
            if last {
                self.wire.push_back((from, to, message));
            } else if !lost {
                self.step(to, Input::Recv { peer: ReplicaId(from), message })?;
            }
            if delivered > 2000 {
                return Err("the wire never falls silent".to_owned());
            }
        }
        Ok(delivered)
    }

    /// Followers hear each other, but not the primary, for more than a second.
    fn give_up(&mut self) -> Result<(), String> {
        for id in 1..4 {
            for _ in 0..3 {
                self.tick(id, 450)?;
                for peer in (1..4).filter(|peer| *peer != id) {
                    // Any message shows that its sender is there; this one asks for nothing.
                    let message = Message::GetBody { hash: Digest([0xee; 32]) };
                    self.step(id, Input::Recv { peer: ReplicaId(peer), message })?;
                }
            }
            self.tick(id, 50)?;
        }
        if self.liar.is_some() {
            let round = (Epoch(0), View(1));
            let scheme = self.schemes[0].as_ref();
            let asks = ViewChange::sign(round, ReplicaId(0), (None, None, None), &CLUSTER, scheme);
            let asks = Arc::new(asks);
            for to in 1..4 {
                self.wire.push_back((0, to, Message::ViewChange(Arc::clone(&asks))));
            }
        }
        Ok(())
    }

    /// Nothing is lost any more: both bundles must be ordered everywhere, or the liar's be given up.
    pub fn heal(&mut self) -> Result<(), String> {
        self.narrow = false;
        let honest = u16::from(self.liar.is_some())..4 - u16::from(self.third_lies);
        let honest: Vec<u16> = honest.collect();
        let newest = self.replicas.iter().map(|replica| replica.mono_ms).max().unwrap_or_default();
        for id in &honest {
            let behind = newest - self.replicas[usize::from(*id)].mono_ms;
            self.tick(*id, behind)?;
        }
        for _ in 0..ROUNDS {
            honest.iter().try_for_each(|id| self.tick(*id, ROUND_MS))?;
            self.deliver_all()?;
            let done = |id: &u16| {
                honest.iter().filter(|origin| **origin < 2).all(|origin| {
                    self.replicas[usize::from(*id)].ordered.contains(&ReplicaId(*origin))
                })
            };
            if honest.iter().all(done) {
                return Ok(());
            }
        }
        let status = |id: &u16| {
            let core = self.replicas[usize::from(*id)].core.as_ref()?;
            let status = core.status();
            Some((*id, status.mode, status.view, status.committed, status.executed))
        };
        let all: Vec<_> = honest.iter().filter_map(status).collect();
        Err(format!("not everything is ordered {} ms after the heal: {all:?}", 300 * ROUND_MS))
    }

    /// View 0 committed, view 1 committed, a block of view 0 committed in view 1.
    pub fn seen(&self) -> [bool; 3] {
        self.seen
    }

    fn deliver_all(&mut self) -> Result<(), String> {
        while let Some((from, to, message)) = self.wire.pop_front() {
            self.step(to, Input::Recv { peer: ReplicaId(from), message })?;
        }
        Ok(())
    }

    fn tick(&mut self, id: u16, ms: u64) -> Result<(), String> {
        let replica = &mut self.replicas[usize::from(id)];
        replica.mono_ms += ms;
        let mono_ms = replica.mono_ms;
        self.step(id, Input::Tick { mono_ms })?;
        self.step(id, Input::Wall { unix_ms: Millis(UNIX_MS + mono_ms) })
    }

    fn step(&mut self, id: u16, input: Input) -> Result<(), String> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(core) = self.replicas[usize::from(id)].core.as_mut() else { return Ok(()) };
            self.steps += 1;
            let mut outputs = Vec::new();
            core.step(input, &mut outputs);
            let mut end = None;
            for output in outputs {
                if let Output::Append { position, .. } = &output {
                    end = Some(*position);
                }
                inputs.extend(self.carry_out(id, output)?);
            }
            // The disk syncs at once, so a gate is open as soon as it is named.
            inputs.extend(end.map(|position: LogPosition| Input::Durable { position }));
        }
        Ok(())
    }

    fn carry_out(&mut self, id: u16, output: Output) -> Result<Option<Input>, String> {
        match output {
            Output::Append { record, .. } => self.note_record(id, record),
            Output::Send { to, message, .. } => self.send(id, to, &message)?,
            Output::Execute { block } => return self.execute(id, &block).map(Some),
            Output::ServeBlocks { to, from, .. } => {
                if let Some(page) = self.page(id, from) {
                    self.wire.push_back((id, to.0, page));
                }
            }
            Output::Evidence(evidence)
                if self.third_lies && evidence.accused() == [ReplicaId(3)] => {}
            Output::Evidence(evidence) if self.third_lies || self.liar.is_none() => {
                return Err(format!("an honest replica is accused: {evidence:?}"));
            }
            Output::Halt { reason } | Output::Quarantine { reason } => {
                return Err(format!("replica {id} stops: {reason}"));
            }
            _ => {}
        }
        Ok(None)
    }

    fn note_record(&mut self, id: u16, record: Record) {
        let replica = &mut self.replicas[usize::from(id)];
        match record {
            Record::Block(block) => {
                replica.blocks.insert(block.hash(), block);
            }
            Record::ViewChangeSent { view, .. } => replica.asked = view,
            Record::Committed(certificate) => {
                let view = certificate.view.0;
                let first = replica.blocks.get(&certificate.block_hash).map(|it| it.header.view.0);
                self.seen[0] |= view == 0;
                self.seen[1] |= view == 1;
                self.seen[2] |= view == 1 && first == Some(0);
                if replica.committed.as_ref().is_none_or(|known| known.height < certificate.height)
                {
                    replica.committed = Some(certificate);
                }
            }
            _ => {}
        }
    }

    fn send(&mut self, from: u16, to: Recipients, message: &Message) -> Result<(), String> {
        let votes = match message {
            Message::PrePrepare { prepare, .. } => std::slice::from_ref(prepare),
            Message::Votes(votes) => votes.as_slice(),
            _ => &[],
        };
        for vote in votes {
            self.note_vote(from, vote)?;
        }
        let orders = matches!(
            message,
            Message::PrePrepare { .. }
                | Message::Votes(_)
                | Message::ViewChange(_)
                | Message::NewView(_)
                | Message::Certificate(_)
                | Message::GetBlocks { .. }
                | Message::Blocks { .. }
                | Message::GetBody { .. }
                | Message::Body(_)
        );
        if self.narrow && !orders {
            return Ok(());
        }
        // All four are voters, so whoever means a group means all others.
        let wanted = |id: u16| match to {
            Recipients::One(one) => one == ReplicaId(id),
            _ => true,
        };
        for id in (0..4).filter(|id| *id != from && wanted(*id)) {
            self.wire.push_back((from, id, message.clone()));
        }
        Ok(())
    }

    /// One vote per (view, height, phase); none in a view that was left. The liar joins in.
    fn note_vote(&mut self, from: u16, vote: &Vote) -> Result<(), String> {
        if vote.view < self.replicas[usize::from(from)].asked {
            return Err(format!("replica {from} votes in a view it left"));
        }
        for (at, hash) in (0..).zip(&vote.signed.hashes) {
            let height = vote.signed.from_height.plus(at);
            let place = (from, vote.view, height, vote.phase);
            if *self.ledger.entry(place).or_insert(*hash) != *hash {
                return Err(format!("{place:?} was voted twice"));
            }
            let joins = self.liar.is_some() && from != 0;
            if joins && self.echoed.insert((vote.view, height, *hash)) {
                for phase in [Phase::Prepare, Phase::Commit] {
                    let (round, range) = ((phase, vote.epoch, vote.view), (height, vec![*hash]));
                    let scheme = self.schemes[0].as_ref();
                    let echo = Vote::sign(round, ReplicaId(0), range, &CLUSTER, scheme);
                    (1..4).for_each(|to| {
                        self.wire.push_back((0, to, Message::Votes(vec![echo.clone()])));
                    });
                }
            }
        }
        Ok(())
    }

    fn execute(&mut self, id: u16, block: &Arc<Block>) -> Result<Input, String> {
        let replica = &mut self.replicas[usize::from(id)];
        let (height, block_hash) = (block.header.height, block.hash());
        replica.executed.push(block_hash);
        let at = replica.executed.len();
        if height.0 != at as u64 {
            return Err(format!("replica {id} executes height {height} as its block {at}"));
        }
        match self.chain.get(at - 1) {
            None => self.chain.push(block_hash),
            Some(known) if *known == block_hash => {}
            Some(_) => return Err(format!("replica {id} forks at height {height}")),
        }
        for bundle in block.bundles() {
            if replica.ordered.contains(&bundle.origin) && bundle.origin != ReplicaId(3) {
                return Err(format!("the bundle of {} is ordered twice", bundle.origin));
            }
            replica.ordered.push(bundle.origin);
        }
        replica.root = hash(&Context::EXEC_ROOT, &[&replica.root.0, &block_hash.0]);
        let effects = Effects { height, exec_root: replica.root, changes: Vec::new() };
        let administrators = Administrators::default();
        Ok(Input::Executed { effects, next_expiry: None, network: None, administrators })
    }

    fn page(&self, id: u16, from: Height) -> Option<Message> {
        let replica = &self.replicas[usize::from(id)];
        let certificate = replica.committed.clone()?;
        if certificate.height < from {
            return None;
        }
        let mut blocks = Vec::new();
        let mut next = certificate.block_hash;
        loop {
            let block = replica.blocks.get(&next)?;
            next = block.header.parent;
            blocks.push(Arc::clone(block));
            if block.header.height <= from {
                break;
            }
        }
        blocks.reverse();
        Some(Message::Blocks { blocks, certificate })
    }
}
