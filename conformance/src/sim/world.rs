//! The world of one seed: a heap of events, the instances, the network between them, and everything that
//! watches.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use althing::chain::{Genesis, GenesisMember, Ownership, Parameters};
use althing::crypto::{Ed25519, Scheme};
use althing::ordering::Input;
use althing::state::State;
use althing::types::{Epoch, Height, Millis, OrgId, ReplicaId};
use bytes::Bytes;

use crate::sim::audit::Audit;
use crate::sim::beyond::Beyond;
use crate::sim::checkers::agreement::Agreement;
use crate::sim::checkers::fences::Fences;
use crate::sim::checkers::model::Model;
use crate::sim::checkers::requests::Requests;
use crate::sim::checkers::verifier::Verifier;
use crate::sim::checkers::votes::{Ledger, Promises};
use crate::sim::disk::{DiskFault, SimDisk, Survivors};
use crate::sim::liars::Liar;
use crate::sim::members::{Changes, SpareKey, governance_key};
use crate::sim::network::Network;
use crate::sim::node::{Identity, Local as Choices, Lost, Node};
use crate::sim::plan::{MILLI, Micros, Mutant, Plan, SECOND};
use crate::sim::proofs::KeptProofs;
use crate::sim::random::Random;
use crate::sim::scheme::KeyRing;
use crate::sim::watchers::WatchClient;
use crate::sim::workload::Workload;

/// Unix time at the start of every world.
const EPOCH_MS: u64 = 1_790_000_000_000;

/// Keys for replicas that join and for rotations.
const SPARE_KEYS: usize = 24;

/// What may happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message arrives.
    Deliver {
        /// At this instance.
        to: usize,
        /// From this replica.
        from: ReplicaId,
        /// Encoded.
        bytes: Bytes,
    },
    /// Something about one process; nothing if it is gone.
    Local {
        /// The instance.
        slot: usize,
        /// The process.
        life: u64,
        /// What.
        what: Local,
    },
    /// A crashed instance starts again.
    Restart {
        /// Which.
        slot: usize,
    },
    /// A paused instance goes on.
    Resume {
        /// Which.
        slot: usize,
    },
    /// Some instance crashes, or all do.
    Crash,
    /// Some replica's disk is lost, or an old copy of it comes back.
    Lose,
    /// The network is cut.
    Cut,
    /// The network is whole again.
    Join,
    /// Some instance stops for a while.
    Pause,
    /// Members or parameters are to change.
    Change,
    /// Some file rots or cannot be read any more.
    Rot,
    /// An operator repairs a damaged replica.
    Repair {
        /// Which.
        slot: usize,
    },
    /// An operation of some disk will fail.
    BreakDisk,
    /// The one wrong wall clock jumps.
    StepClock,
    /// A watch client asks and reads.
    Watch {
        /// Which.
        client: usize,
    },
    /// The halves of a twin get other listeners.
    Divide,
    /// The faults end.
    Heal,
    /// Is everything done?
    Look,
}

/// What happens inside one process.
#[derive(Clone, Debug)]
pub enum Local {
    /// Time for the core.
    Tick,
    /// The batch is on disk.
    Synced,
    /// The next block is executed.
    Executed,
    /// Clients write.
    Write,
    /// A client reads.
    Read,
    /// The next slice of a checkpoint is written.
    Checkpoint,
    /// The next segment is pruned.
    Prune,
    /// All that is on disk is read again.
    Scrub,
    /// The transfer thread is done with its oldest job.
    Transfer,
    /// A link changes.
    Link {
        /// To whom.
        peer: ReplicaId,
        /// Whether it stands.
        up: bool,
    },
}

impl Event {
    /// The instance it happens to, if it is one.
    fn slot(&self) -> Option<usize> {
        match self {
            Self::Deliver { to: slot, .. } | Self::Local { slot, .. } | Self::Restart { slot } => {
                Some(*slot)
            }
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Scheduled {
    at: Micros,
    tie: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.tie, self.number).cmp(&(other.at, other.tie, other.number))
    }
}

/// What a run shows when all went well.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Over all events.
    pub audit: String,
    /// Events.
    pub events: u64,
    /// Virtual time.
    pub time: Micros,
    /// The chain's height.
    pub height: u64,
    /// Writes acknowledged.
    pub writes: usize,
    /// Linearizable reads answered.
    pub reads: u64,
    /// How often rare things happened.
    pub seen: BTreeMap<&'static str, u64>,
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When.
    pub time: Micros,
    /// Events until then.
    pub events: u64,
    /// What.
    pub what: String,
}

/// The world.
pub struct World {
    pub(super) plan: Plan,
    pub(super) now: Micros,
    heap: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    pub(super) random: Random,
    pub(super) network: Network,
    pub(super) nodes: Vec<Node>,
    /// Whoever may do anything: twins and those of `bent`.
    pub(super) liars: BTreeSet<ReplicaId>,
    /// Whose words are bent.
    pub(super) bent: BTreeMap<ReplicaId, Liar>,
    pub(super) verifier: Verifier,
    pub(super) ledger: Ledger,
    pub(super) fences: Fences,
    /// Every replica had entered a view.
    begun: bool,
    pub(super) agreement: Agreement,
    pub(super) model: Model,
    pub(super) requests: Requests,
    pub(super) watchers: Vec<WatchClient>,
    pub(super) changes: Changes,
    pub(super) beyond: Beyond,
    pub(super) audit: Audit,
    pub(super) seen: BTreeMap<&'static str, u64>,
    pub(super) healed_at: Option<Micros>,
    pub(super) verbose: bool,
    done: bool,
}

fn members(keys: &[althing::crypto::PublicKey]) -> Vec<GenesisMember> {
    let member = |(key, id): (&althing::crypto::PublicKey, u16)| GenesisMember {
        id: ReplicaId(id),
        organisation: OrgId(id),
        name: format!("org{id}"),
        key: *key,
        governance_keys: vec![governance_key(id).public_key()],
        client_urls: vec![format!("https://127.0.0.1:{}", 2000 + id)],
        peer_address: format!("127.0.0.1:{}", 3000 + id),
    };
    keys.iter().zip(0..).map(member).collect()
}

fn shuffled(n: usize, random: &mut Random) -> Vec<ReplicaId> {
    let mut ids: Vec<ReplicaId> = (0..u16::try_from(n).expect("few")).map(ReplicaId).collect();
    for at in (1..n).rev() {
        ids.swap(at, random.index(at + 1));
    }
    ids
}

/// Each replica's way to sign, and its public key.
type Keys = (Vec<Arc<dyn Scheme>>, Vec<althing::crypto::PublicKey>);

fn keys(plan: &Plan, random: &mut Random) -> Keys {
    let secrets: Vec<[u8; 32]> = (0..plan.n + SPARE_KEYS).map(|_| random.bytes()).collect();
    if plan.ed25519 {
        let public = |secret| Ed25519::from_seed(secret).public_key();
        let scheme = |secret| Arc::new(Ed25519::from_seed(secret)) as Arc<dyn Scheme>;
        (secrets.iter().map(scheme).collect(), secrets.iter().map(public).collect())
    } else {
        let (ring, public) = KeyRing::new(&secrets);
        (secrets.iter().map(|secret| ring.scheme(*secret)).collect(), public)
    }
}

/// A replica that has not started.
fn node(plan: &Plan, identity: Identity, random: &mut Random) -> Node {
    let id = identity.id;
    let skew = random.below(2 * plan.skew_ms + 1).cast_signed() - plan.skew_ms.cast_signed();
    Node {
        identity,
        key_epoch: Epoch(0),
        disk: SimDisk::default(),
        starts: 0,
        life: None,
        promises: Promises::default(),
        paused: false,
        arrived: Vec::new(),
        quarantined: false,
        gone: false,
        links: BTreeSet::new(),
        voters: BTreeSet::new(),
        known: (Epoch(0), BTreeSet::new()),
        proofs: KeptProofs::default(),
        lost: Lost::No,
        older: None,
        checkpoint_durable: Height(0),
        skew_ms: skew,
        rate: if plan.drift { random.between(770, 1_300) } else { 1_000 },
        local: if plan.local_settings { Choices::draw(random) } else { Choices::COMMON },
        workload: Workload::new(id, plan.large_values, random.fork()),
        mutant: plan.mutant,
        salt: random.bytes(),
    }
}

impl World {
    /// A replica that joins: it has the genesis and who the members are now, and nothing else.
    pub(super) fn enrol(&mut self, id: ReplicaId, scheme: Arc<dyn Scheme>) {
        let first = &self.nodes[0].identity;
        let now = self.verifier.epochs.now();
        let identity = Identity {
            id,
            scheme,
            key: now.seats[&id].key,
            genesis: Arc::clone(&first.genesis),
            membership: first.membership.clone(),
            cluster_id: first.cluster_id,
            genesis_root: first.genesis_root,
        };
        let mut node = node(&self.plan, identity, &mut self.random);
        node.lost = Lost::Joined;
        node.known = (self.verifier.epochs.epoch(), now.seats.keys().copied().collect());
        self.nodes.push(node);
    }

    /// The world of a plan, before its first event.
    ///
    /// # Errors
    /// A replica does not start on an empty disk.
    pub fn new(plan: Plan, verbose: bool) -> Result<Self, Failure> {
        // The plan was drawn from the seed itself; the world draws from elsewhere.
        let mut random = Random::new(plan.seed ^ 0x5eed_0000_0000_0001);
        let (mut schemes, mut public) = keys(&plan, &mut random);
        let spare: Vec<SpareKey> =
            schemes.split_off(plan.n).into_iter().zip(public.split_off(plan.n)).collect();
        let genesis = Arc::new(Genesis {
            ownership: Ownership::Many,
            demo: false,
            salt: random.bytes(),
            created_ms: Millis(EPOCH_MS),
            members: members(&public),
            parameters: Parameters {
                checkpoint_log_bytes: plan.checkpoint_log_bytes,
                checkpoint_state_factor: 0,
                tenure_blocks: plan.tenure_blocks,
                ..Parameters::default()
            },
            initial: None,
        });
        let cluster_id = genesis.cluster_id();
        let genesis_root = State::genesis(&genesis).exec_root();
        let mut ids: Vec<usize> = (0..plan.n).collect();
        let faulty = shuffled(plan.n, &mut random);
        let (twins, lying) = faulty.split_at(plan.twins);
        ids.extend(twins.iter().map(|id| usize::from(id.0)));
        let bent = lying.iter().zip(&plan.lies).map(|(id, lie)| {
            let signs = (cluster_id, Arc::clone(&schemes[usize::from(id.0)]));
            (*id, Liar::new(*lie, *id, plan.n, signs, random.fork()))
        });
        let bent: BTreeMap<ReplicaId, Liar> = bent.collect();
        let liars: BTreeSet<ReplicaId> = twins.iter().chain(bent.keys()).copied().collect();
        let nodes = ids.iter().map(|&at| {
            let identity = Identity {
                id: ReplicaId(u16::try_from(at).expect("few")),
                scheme: Arc::clone(&schemes[at]),
                key: public[at],
                genesis: Arc::clone(&genesis),
                membership: genesis.membership(),
                cluster_id,
                genesis_root,
            };
            node(&plan, identity, &mut random)
        });
        let mut nodes: Vec<Node> = nodes.collect();
        if let Some(node) = nodes.iter_mut().find(|node| !liars.contains(&node.identity.id)) {
            node.skew_ms += plan.wrong_clock_ms;
        }
        let mut world = Self {
            verifier: Verifier::new(cluster_id, &public, Arc::clone(&schemes[0])),
            ledger: Ledger::new(liars.clone()),
            fences: Fences::default(),
            begun: false,
            agreement: Agreement::new(genesis_root),
            model: Model::new(),
            requests: Requests::default(),
            network: Network::new(plan.links.clone(), random.fork()),
            watchers: WatchClient::some(plan.watchers, &mut random),
            beyond: Beyond::default(),
            changes: Changes::new(spare, random.fork()),
            audit: Audit::default(),
            seen: BTreeMap::new(),
            healed_at: None,
            heap: BinaryHeap::new(),
            scheduled: 0,
            now: 0,
            done: false,
            nodes,
            liars,
            bent,
            random,
            plan,
            verbose,
        };
        world.begin().map_err(|what| world.failure(what))?;
        Ok(world)
    }

    fn begin(&mut self) -> Result<(), String> {
        if self.plan.mutant == Some(Mutant::LyingSync) {
            self.nodes.iter().for_each(|node| node.disk.lie());
        }
        for slot in 0..self.nodes.len() {
            self.restart(slot)?;
        }
        let plan = self.plan.clone();
        if let Some(power) = plan.power {
            self.nodes[0].disk.fail_after(power.after);
        }
        if plan.drift {
            self.count("clock rates differ");
        }
        if plan.skew_ms > 0 {
            self.count("clocks apart");
        }
        let nemeses = [
            (plan.crash_every, Event::Crash),
            (plan.lose_every, Event::Lose),
            (plan.cut_every, Event::Cut),
            (plan.pause_every, Event::Pause),
            (plan.disk_fault_every, Event::BreakDisk),
            (plan.change_every, Event::Change),
            (plan.rot_every, Event::Rot),
            (if plan.wrong_clock_ms == 0 { 0 } else { SECOND }, Event::StepClock),
        ];
        for (every, event) in nemeses {
            self.again(every, event);
        }
        if plan.twins > 0 {
            self.schedule(if plan.beyond { SECOND / 2 } else { 0 }, Event::Divide);
        }
        if plan.local_settings {
            self.count("local settings differ");
        }
        for client in 0..self.watchers.len() {
            self.schedule(MILLI, Event::Watch { client });
        }
        self.schedule(plan.faulty_for, Event::Heal);
        Ok(())
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn run(mut self) -> Result<Summary, Failure> {
        while let Some(Reverse(next)) = self.heap.pop() {
            assert!(next.at >= self.now, "time does not go back");
            self.now = next.at;
            let slot = next.event.slot();
            let result = self.happen(next.event);
            if let Err(what) = self.disk_errors(slot, result) {
                return Err(self.failure(what));
            }
            if self.done {
                return Ok(self.summary());
            }
        }
        Err(self.failure("nothing happens any more".to_owned()))
    }

    /// The first error of a disk ends its process (protocol.md 6); any other error is a failure, and so
    /// is one of a disk that nobody minded.
    fn disk_errors(
        &mut self,
        slot: Option<usize>,
        result: Result<(), String>,
    ) -> Result<(), String> {
        let met = slot.and_then(|slot| Some((slot, self.nodes[slot].disk.met()?)));
        let Some((slot, fault)) = met else { return result };
        let Err(what) = result else { return Err(format!("{slot} goes on after {fault:?}")) };
        self.say(slot, || format!("ends at a disk error: {what}"));
        let known = DiskFault::ALL.iter().find(|(_, one)| *one == fault);
        self.count(known.map_or("disk: power failed", |(name, _)| name));
        match fault {
            DiskFault::PowerFails => self.power_fails(slot),
            _ if self.nodes[slot].life.is_some() => self.crash(slot),
            _ => self.schedule(100 * MILLI, Event::Restart { slot }),
        }
        Ok(())
    }

    /// The enumerated crash: all at this operation, and if asked once more while it recovers.
    fn power_fails(&mut self, slot: usize) {
        let Some(power) = &mut self.plan.power else { return self.crash(slot) };
        let (survivors, then) = (power.survivors, power.then.take());
        self.nodes[slot].life = None;
        self.nodes[slot].promises.crashed();
        self.nodes[slot].disk.crash(survivors, &mut self.random);
        if let Some(then) = then {
            self.nodes[slot].disk.fail_after(then);
        }
        self.schedule(10 * MILLI, Event::Restart { slot });
    }

    fn failure(&self, what: String) -> Failure {
        Failure { time: self.now, events: self.audit.events(), what }
    }

    fn summary(mut self) -> Summary {
        for (what, count) in core::mem::take(&mut self.network.seen) {
            *self.seen.entry(what).or_default() += count;
        }
        Summary {
            audit: self.audit.digest(),
            events: self.audit.events(),
            time: self.now,
            height: self.agreement.top().0,
            writes: self.requests.acknowledged(),
            reads: self.requests.reads,
            seen: self.seen,
        }
    }

    /// Lets an event happen after `delay`.
    pub(super) fn schedule(&mut self, delay: Micros, event: Event) {
        self.schedule_at(self.now + delay, event);
    }

    pub(super) fn schedule_at(&mut self, at: Micros, event: Event) {
        self.scheduled += 1;
        let (tie, number) = (self.random.below(1 << 20), self.scheduled);
        self.heap.push(Reverse(Scheduled { at, tie, number, event }));
    }

    /// Lets something happen inside the process that runs at `slot` now.
    pub(super) fn schedule_local(&mut self, slot: usize, delay: Micros, what: Local) {
        let Some(life) = self.nodes[slot].life.as_ref().map(|life| life.number) else { return };
        self.schedule(delay, Event::Local { slot, life, what });
    }

    fn again(&mut self, every: Micros, event: Event) {
        if every > 0 && self.healed_at.is_none() {
            let delay = self.random.between(every / 4, 2 * every);
            self.schedule(delay, event);
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(super) fn say(&self, slot: usize, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:>10} us  {slot}  {}", self.now, what());
        }
    }

    pub(super) fn honest(&self, slot: usize) -> bool {
        !self.liars.contains(&self.nodes[slot].identity.id)
    }

    /// The instances of a replica.
    pub(super) fn slots_of(&self, id: ReplicaId) -> Vec<usize> {
        (0..self.nodes.len()).filter(|slot| self.nodes[*slot].identity.id == id).collect()
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Deliver { to, .. } | Event::Local { slot: to, .. } if self.nodes[to].paused => {
                self.nodes[to].arrived.push(event);
                Ok(())
            }
            Event::Deliver { to, from, bytes } => self.deliver(to, from, bytes),
            Event::Local { slot, life, what } => {
                if self.nodes[slot].life.as_ref().is_none_or(|now| now.number != life) {
                    return Ok(());
                }
                self.local(slot, what)
            }
            Event::Restart { slot } if self.nodes[slot].gone || self.nodes[slot].quarantined => {
                Ok(())
            }
            Event::Restart { slot } if self.nodes[slot].life.is_none() => self.restart(slot),
            Event::Restart { .. } => Ok(()),
            Event::Resume { slot } => {
                self.resume(slot);
                Ok(())
            }
            Event::Watch { client } => self.watch(client),
            Event::Repair { slot } => self.repair(slot),
            Event::Look if self.plan.beyond => self.look_beyond(),
            Event::Look => self.look(),
            fault => {
                self.fault(fault);
                Ok(())
            }
        }
    }

    fn local(&mut self, slot: usize, what: Local) -> Result<(), String> {
        match what {
            Local::Tick => self.tick(slot),
            Local::Synced => self.synced(slot),
            Local::Executed => self.executed(slot),
            Local::Checkpoint => self.checkpoint_slice(slot),
            Local::Prune => self.prune_slice(slot),
            Local::Scrub => self.scrub(slot),
            Local::Transfer => self.transferred(slot),
            Local::Write => self.write(slot),
            Local::Read => self.read(slot),
            Local::Link { peer, up: true } => self.step(slot, Input::PeerUp { peer }),
            Local::Link { peer, up: false } => self.step(slot, Input::PeerDown { peer }),
        }
    }

    fn fault(&mut self, fault: Event) {
        if self.healed_at.is_some() && !matches!(fault, Event::Divide) {
            return;
        }
        let slots = self.nodes.len();
        match fault {
            Event::Crash => {
                if self.plan.crash_all && self.random.chance(150) {
                    self.count("all crashed");
                    (0..slots).for_each(|slot| self.crash(slot));
                } else {
                    let slot = self.random.index(slots);
                    self.crash(slot);
                }
                self.again(self.plan.crash_every, Event::Crash);
            }
            Event::Cut => {
                self.count("network cut");
                let status =
                    self.nodes.iter().find_map(|node| Some(node.life.as_ref()?.core.status()));
                let primary = status.and_then(|status| status.primary).unwrap_or_default();
                let primary = self.slots_of(primary).first().copied().unwrap_or(0);
                self.network.cut_at_random(slots, primary);
                let length = self.silence(50 * MILLI);
                self.schedule(length, Event::Join);
                self.again(self.plan.cut_every, Event::Cut);
            }
            Event::Lose => {
                self.lose();
                self.again(self.plan.lose_every, Event::Lose);
            }
            Event::Join => self.network.join(),
            Event::Pause => {
                let slot = self.random.index(slots);
                if !self.nodes[slot].paused {
                    self.count("paused");
                    self.nodes[slot].paused = true;
                    let length = self.silence(20 * MILLI);
                    self.schedule(length, Event::Resume { slot });
                }
                self.again(self.plan.pause_every, Event::Pause);
            }
            Event::StepClock => {
                let honest = |node: &&mut Node| !self.liars.contains(&node.identity.id);
                if let Some(node) = self.nodes.iter_mut().find(honest) {
                    // Up to ten years, to either side.
                    let far = self.random.below(10 * 365 * 86_400_000).cast_signed();
                    node.skew_ms = if self.random.chance(500) { far } else { -far };
                }
                self.count("clock stepped");
                self.again(4 * SECOND, Event::StepClock);
            }
            Event::Change => {
                self.propose_change();
                self.again(self.plan.change_every, Event::Change);
            }
            Event::BreakDisk => {
                let (_, fault) = *self.random.pick(&DiskFault::ALL);
                let slot = self.random.index(slots);
                // Before the network has begun it would be a first start gone wrong.
                if self.has_begun() {
                    self.nodes[slot].disk.break_once(fault);
                }
                self.again(self.plan.disk_fault_every, Event::BreakDisk);
            }
            Event::Rot => {
                self.rot();
                self.again(self.plan.rot_every, Event::Rot);
            }
            Event::Divide if self.plan.beyond && self.healed_at.is_some() => {}
            Event::Divide if self.plan.beyond => self.part(),
            Event::Divide => {
                let halves = self.liars.clone();
                for id in halves {
                    if let [one, two] = self.slots_of(id)[..] {
                        self.network.divide_twins((one, two), slots);
                    }
                }
                self.count("twins divided");
                self.schedule(SECOND, Event::Divide);
            }
            Event::Heal => self.heal(),
            _ => {}
        }
    }

    /// Keeps a copy of one disk, and takes another away or exchanges it for its copy: of at most f
    /// replicas at a time, of which one that nobody noticed stays one, and those that lie or will stay
    /// down are some.
    fn lose(&mut self) {
        let copied = self.random.index(self.nodes.len());
        let copy = self.nodes[copied].disk.copy();
        copy.crash(Survivors::Everything, &mut self.random);
        self.nodes[copied].older = Some(copy);
        let slot = self.random.index(self.nodes.len());
        let whole = self.nodes[slot].lost == Lost::No && self.votes_now(slot);
        if !self.has_begun() || !whole || !self.bears_one_more() {
            return;
        }
        self.crash(slot);
        let older = self.nodes[slot].older.take().filter(|_| self.random.chance(600));
        self.count(if older.is_some() { "disk rolled back" } else { "disk lost" });
        let node = &mut self.nodes[slot];
        node.lost = if older.is_some() { Lost::Unnoticed } else { Lost::Wiped };
        node.disk = older.unwrap_or_default();
        node.proofs = KeptProofs::default();
        node.promises.lost();
        let id = node.identity.id;
        self.ledger.forget(id);
    }

    /// What arrived meanwhile is taken in the order it came: a link that fell and stands again stands.
    fn resume(&mut self, slot: usize) {
        self.nodes[slot].paused = false;
        let arrived = core::mem::take(&mut self.nodes[slot].arrived);
        for (after, event) in (0..).zip(arrived) {
            self.schedule(after, event);
        }
    }

    /// How long a pause or a cut lasts. Silence of 2 s while not all have begun gets one fenced that lost
    /// nothing (protocol.md 6.6).
    fn silence(&mut self, least: Micros) -> Micros {
        let length = self.random.between(least, 4 * SECOND);
        if self.has_begun() { length } else { length.min(SECOND / 2) }
    }

    /// Whether every replica has begun: one that crashes before has an empty log among others that have
    /// voted, and counts as one that lost it.
    pub(super) fn has_begun(&mut self) -> bool {
        // Who lies may be fenced from its start on: its twin has voted.
        let honest = (0..self.nodes.len()).filter(|slot| self.honest(*slot));
        let begun = honest.into_iter().all(|slot| self.nodes[slot].promises.has_begun());
        self.begun |= begun;
        self.begun
    }

    fn heal(&mut self) {
        self.say(0, || "the faults end".to_owned());
        self.healed_at = Some(self.now);
        self.network.heal();
        if self.plan.beyond {
            self.network.unite();
        }
        for slot in 0..self.nodes.len() {
            if self.nodes[slot].lost == Lost::Damaged {
                self.schedule_local(slot, MILLI, Local::Scrub);
            } else {
                self.nodes[slot].disk.mend();
            }
        }
        self.changes.heal();
        for _ in 0..self.may_fall() {
            let slot = self.random.index(self.nodes.len());
            if self.honest(slot) && !self.nodes[slot].gone && self.votes_now(slot) {
                self.count("gone for good");
                self.crash(slot);
                self.nodes[slot].gone = true;
            }
        }
        self.watchers.iter_mut().for_each(WatchClient::heal);
        for slot in 0..self.nodes.len() {
            self.resume(slot);
            if self.nodes[slot].life.is_none() {
                self.schedule(MILLI, Event::Restart { slot });
            }
        }
        self.schedule(100 * MILLI, Event::Look);
    }

    /// The run is over.
    pub(super) fn finish(&mut self) {
        self.done = true;
    }
}
