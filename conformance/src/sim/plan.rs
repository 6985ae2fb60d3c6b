//! What a seed means: how many replicas, which faults, how fast things are. Each seed leaves out a random
//! half of the fault kinds, so that rare ones meet in every combination.

use crate::sim::checkers::verifier::quorum;
use crate::sim::disk::Survivors;
use crate::sim::liars::Lie;
use crate::sim::random::Random;

/// Microseconds of virtual time.
pub type Micros = u64;

/// One second of virtual time.
pub const SECOND: Micros = 1_000_000;
/// One millisecond of virtual time.
pub const MILLI: Micros = 1_000;

/// Every other seed from here on is dealt what counts against f, in turn: so a night sees each of it,
/// however few seeds it gets through, and the seeds that were recorded keep their meaning.
const DEALT: u64 = 1 << 20;

/// How links behave, in parts of 1,000 and microseconds.
#[derive(Clone, Debug)]
pub struct Links {
    /// Lost messages.
    pub loss: u64,
    /// Messages that arrive twice.
    pub duplicate: u64,
    /// Whether messages of one link overtake each other.
    pub reorder: bool,
    /// Shortest delay.
    pub delay_min: Micros,
    /// Usual longest delay.
    pub delay_max: Micros,
    /// Messages that take up to half a second.
    pub straggle: u64,
}

/// A bug put into the shell on purpose: the checkers must find each (`docs/testing.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// M1: votes count and leave before their records are durable.
    Ungated,
    /// A sync that does nothing.
    LyingSync,
    /// A restart forgets the VIEW-CHANGE it sent, and votes on in the old view.
    ForgetsViewChange,
    /// A restart forgets its prepared certificate, and its VIEW-CHANGE shows none.
    ForgetsPrepared,
    /// A restart forgets the view it entered.
    ForgetsView,
    /// A linearizable read answers without asking anyone.
    EagerRead,
    /// One replica's state differs by a bit.
    OtherRoot,
    /// Every process of a replica has the same nonce, as if it were read from the disk.
    NonceFromDisk,
    /// A replica whose key was rotated ends before its log holds the end of the epoch.
    KeyEndsEarly,
    /// A checkpoint is written while the log up to its block is not durable.
    CheckpointBeforeLog,
    /// A replica that starts over on a fetched state drops the end of its log.
    DropsLogEnd,
}

impl Mutant {
    /// All, with their names.
    pub const ALL: [(&'static str, Self); 11] = [
        ("ungated", Self::Ungated),
        ("lying-sync", Self::LyingSync),
        ("forgets-view-change", Self::ForgetsViewChange),
        ("forgets-prepared", Self::ForgetsPrepared),
        ("forgets-view", Self::ForgetsView),
        ("eager-read", Self::EagerRead),
        ("other-root", Self::OtherRoot),
        ("nonce-from-disk", Self::NonceFromDisk),
        ("key-ends-early", Self::KeyEndsEarly),
        ("checkpoint-before-log", Self::CheckpointBeforeLog),
        ("drops-log-end", Self::DropsLogEnd),
    ];
}

/// A crash at a fixed operation of the first replica's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    /// Operations that still work.
    pub after: u64,
    /// What is left of what was not synced.
    pub survivors: Survivors,
    /// Operations of the recovery that work before it fails again.
    pub then: Option<u64>,
}

/// Everything that a seed decides before the first event.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// None, but in tests of the tester.
    pub mutant: Option<Mutant>,
    /// Voting replicas.
    pub n: usize,
    /// Replicas that run twice with one key; counted against f.
    pub twins: usize,
    /// What liars do, one each; counted against f.
    pub lies: Vec<Lie>,
    /// Real ed25519 instead of keyed hashes.
    pub ed25519: bool,
    /// Before the network heals.
    pub links: Links,
    /// Mean time between crashes; 0 for none.
    pub crash_every: Micros,
    /// Crashes may take all replicas at once.
    pub crash_all: bool,
    /// Mean time between losses of a disk, or returns of an old copy of one; 0 for none. Until it votes
    /// again the replica counts against f.
    pub lose_every: Micros,
    /// Mean time between cuts of the network; 0 for none.
    pub cut_every: Micros,
    /// Mean time between changes of members or parameters; 0 for none.
    pub change_every: Micros,
    /// Mean time between pauses of a replica; 0 for none.
    pub pause_every: Micros,
    /// Mean time between rot, and files that cannot be read; 0 for none.
    pub rot_every: Micros,
    /// Each replica has settings of its own.
    pub local_settings: bool,
    /// f + 1 replicas lie: safety may break, and whoever broke it must be named.
    pub beyond: bool,
    /// Mean time between failures of a disk; 0 for none.
    pub disk_fault_every: Micros,
    /// A crash at a fixed place, for the enumeration of all.
    pub power: Option<Power>,
    /// Monotonic clocks run up to 30 % too fast or too slow.
    pub drift: bool,
    /// Usual longest time of a sync.
    pub sync_max: Micros,
    /// Syncs that take up to 300 ms, in parts of 1,000.
    pub sync_slow: u64,
    /// Longest time between the execution's begin and end.
    pub execute_max: Micros,
    /// Largest deviation of a wall clock, in ms.
    pub skew_ms: u64,
    /// Mean time between the bundles of one replica.
    pub bundle_every: Micros,
    /// Mean time between the linearizable reads of one replica.
    pub read_every: Micros,
    /// Clients that watch.
    pub watchers: usize,
    /// One replica's wall clock is wrong by so many ms; counted against f.
    pub wrong_clock_ms: i64,
    /// Values of up to 200 KiB among the small ones, in parts of 1,000.
    pub large_values: u64,
    /// A checkpoint after so many bytes of blocks.
    pub checkpoint_log_bytes: u64,
    /// Blocks after which a primary hands over.
    pub tenure_blocks: u32,
    /// Blocks at and below a stable checkpoint are served no more.
    pub erases: bool,
    /// Replicas that are down when the faults end and stay so; the others must go on without them.
    pub stay_down: usize,
    /// Clients have users, roles and rights, and change them.
    pub users: bool,
    /// Length of the phase with faults.
    pub faulty_for: Micros,
    /// After the faults end, every op of a live origin finishes within this.
    pub finish_within: Micros,
}

impl Plan {
    /// Draws the plan of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let n = *random.pick(&[1, 3, 4, 4, 4, 4, 4, 5, 7, 7, 10]);
        let f = (n - 1) / 3;
        let mut half = || random.chance(500);
        let (lossy, doubling, reorder, slow) = (half(), half(), half(), half());
        let (crash, crash_all, cut, pause) = (half(), half(), half(), half());
        let (twins, slow_disk, slow_apply, skew) = (half() && half(), half(), half(), half());
        let links = Links {
            loss: if lossy { random.between(1, 150) } else { 0 },
            duplicate: if doubling { random.between(1, 300) } else { 0 },
            reorder,
            delay_min: random.between(50, 500),
            delay_max: if slow { random.between(1, 60) * MILLI } else { random.between(600, 3000) },
            straggle: if slow { random.between(1, 30) } else { 0 },
        };
        let mut every = |on: bool, least: Micros, most: Micros| {
            if on { random.between(least, most) } else { 0 }
        };
        let mut plan = Self {
            seed,
            mutant: None,
            n,
            twins: if twins { f.min(1) } else { 0 },
            lies: Vec::new(),
            ed25519: seed % 20 == 7,
            links,
            crash_every: every(crash, SECOND / 4, 3 * SECOND),
            crash_all,
            lose_every: 0,
            cut_every: every(cut, SECOND / 2, 4 * SECOND),
            pause_every: every(pause, SECOND / 2, 4 * SECOND),
            change_every: 0,
            rot_every: 0,
            local_settings: false,
            beyond: false,
            disk_fault_every: 0,
            power: None,
            drift: false,
            sync_max: every(true, 200, if slow_disk { 20 * MILLI } else { 2 * MILLI }),
            sync_slow: every(slow_disk, 1, 30),
            execute_max: every(true, 50, if slow_apply { 50 * MILLI } else { MILLI }),
            skew_ms: if skew { 200 } else { 0 },
            bundle_every: every(true, 3 * MILLI, 60 * MILLI),
            read_every: every(true, 10 * MILLI, 200 * MILLI),
            watchers: 3,
            wrong_clock_ms: 0,
            large_values: 0,
            checkpoint_log_bytes: 64 << 20,
            tenure_blocks: 50,
            erases: false,
            stay_down: 0,
            users: false,
            faulty_for: every(true, 3 * SECOND, 15 * SECOND),
            finish_within: 60 * SECOND,
        };
        plan.drift = random.chance(300);
        if random.chance(400) {
            plan.disk_fault_every = random.between(SECOND / 2, 5 * SECOND);
        }
        let lies = if random.chance(600) { random.index(f - plan.twins + 1) } else { 0 };
        let lies = if lies == 0 && random.chance(300) { f - plan.twins } else { lies };
        let anywhere = &Lie::ALL[..Lie::ANYWHERE];
        plan.lies = (0..lies).map(|_| random.pick(anywhere).1).collect();
        let may_fall = n - quorum(n) - plan.twins - plan.lies.len();
        if random.chance(400) {
            plan.stay_down = random.index(may_fall + 1);
        }
        if random.chance(200) {
            plan.large_values = random.between(1, 20);
        }
        if random.chance(200) && f > plan.twins + plan.stay_down + plan.lies.len() {
            let wrong = random.between(600, 60_000).cast_signed();
            plan.wrong_clock_ms = if random.chance(500) { wrong } else { -wrong };
        }
        let clocks = usize::from(plan.wrong_clock_ms != 0);
        if random.chance(500) && f > plan.twins + plan.stay_down + clocks {
            plan.lose_every = random.between(SECOND, 5 * SECOND);
        }
        if random.chance(700) {
            plan.checkpoint_log_bytes = random.between(5 << 10, 300 << 10);
            plan.erases = random.chance(600);
        }
        if random.chance(400) {
            plan.change_every = random.between(SECOND / 4, 2 * SECOND);
        }
        if random.chance(400) {
            plan.rot_every = random.between(SECOND, 4 * SECOND);
        }
        plan.local_settings = random.chance(500);
        if plan.change_every > 0 && !plan.lies.is_empty() && random.chance(400) {
            plan.lies[0] = random.pick(&Lie::ALL[Lie::ANYWHERE..]).1;
        }
        plan.users = random.chance(300);
        if seed >= DEALT && seed % 2 == 1 {
            plan.deal(seed / 2, &mut random);
        }
        if seed >= DEALT && seed % 20 == 6 {
            plan.churn();
        }
        plan
    }

    /// Members and parameters change all the time, between checkpoints and starts, and of most blocks
    /// nobody has more than a state to give.
    pub fn churn(&mut self) {
        self.change_every = SECOND / 2;
        self.faulty_for = self.faulty_for.max(8 * SECOND);
        self.checkpoint_log_bytes = 5 << 10;
        self.crash_every = SECOND;
        self.erases = true;
    }

    /// One lie, or one way to lose a disk, and nothing else that counts against f: what is drawn with
    /// the others finds no room in most networks.
    fn deal(&mut self, turn: u64, random: &mut Random) {
        if self.n < 4 {
            return;
        }
        (self.twins, self.stay_down, self.wrong_clock_ms) = (0, 0, 0);
        (self.lose_every, self.rot_every) = (0, 0);
        let turns = Lie::ALL.len() + 2;
        let turn = usize::try_from(turn % turns as u64).expect("below the count");
        self.lies = Lie::ALL.get(turn).map(|(_, lie)| *lie).into_iter().collect();
        let often = random.between(SECOND / 2, 2 * SECOND);
        if turn >= Lie::ALL.len() {
            let every = if turn % 2 == 0 { &mut self.lose_every } else { &mut self.rot_every };
            *every = often;
        } else if turn >= Lie::ANYWHERE {
            self.change_every = often;
        }
    }

    /// A plan without faults, to see the normal case.
    #[must_use]
    pub fn calm(seed: u64, n: usize) -> Self {
        let links = Links {
            loss: 0,
            duplicate: 0,
            reorder: false,
            delay_min: 100,
            delay_max: 500,
            straggle: 0,
        };
        Self {
            seed,
            mutant: None,
            n,
            twins: 0,
            lies: Vec::new(),
            ed25519: false,
            links,
            crash_every: 0,
            crash_all: false,
            lose_every: 0,
            cut_every: 0,
            pause_every: 0,
            change_every: 0,
            rot_every: 0,
            local_settings: false,
            beyond: false,
            disk_fault_every: 0,
            power: None,
            drift: false,
            sync_max: MILLI,
            sync_slow: 0,
            execute_max: 200,
            skew_ms: 0,
            bundle_every: 10 * MILLI,
            read_every: 50 * MILLI,
            watchers: 3,
            wrong_clock_ms: 0,
            large_values: 0,
            checkpoint_log_bytes: 100 << 10,
            tenure_blocks: 100_000,
            erases: false,
            stay_down: 0,
            users: false,
            faulty_for: 3 * SECOND,
            finish_within: 10 * SECOND,
        }
    }

    /// One more liar than the network bears, each running twice, once for each half of the others.
    #[must_use]
    pub fn beyond(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xbe70_17d0);
        let n = *random.pick(&[4, 4, 7, 10]);
        let mut plan = Self::calm(seed, n);
        plan.beyond = true;
        plan.twins = (n - 1) / 3 + 1;
        plan.watchers = 0;
        plan.checkpoint_log_bytes = 64 << 20;
        plan.links.delay_max = random.between(600, 20_000);
        plan.faulty_for = random.between(SECOND, 4 * SECOND);
        plan
    }
}
