//! The ordering protocol restated as a small explicit-state model, and a breadth-first search over it.
//!
//! It shares no code with `src/ordering` and judges the *rules* of `docs/protocol.md`, not their
//! implementation: which votes a replica may cast, what a VIEW-CHANGE and a NEW-VIEW carry, when a replica
//! that lost its disk may vote again. Every state is visited, so an interleaving that no seed of the
//! simulator hits is not missed; in exchange the world is tiny: four replicas, one or two heights, two or
//! three views.
//!
//! A liar is a replica whose votes always count for everything and whose VIEW-CHANGE carries any
//! certificate that exists, or none; as a primary it proposes any block to anyone and starts its view with
//! any q VIEW-CHANGEs for each replica anew.

pub mod blocks;
pub mod cases;
pub mod rules;
pub mod search;
pub mod state;
pub mod steps;
mod failures;
mod text;
mod views;

use blocks::World;

/// A rule left out or wrong on purpose; the search must find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// M1: votes leave before they are durable.
    VotesBeforeDurable,
    /// M2: the highest certificate by (height, view).
    WinnerByHeight,
    /// M3: a quorum is one less.
    SmallQuorum,
    /// M4: a second block is accepted at one (view, height).
    TwoBlocksAccepted,
    /// M5: COMMIT of the old view after VIEW-CHANGE.
    CommitAfterViewChange,
    /// M6: PREPARE before the block is durable, and no abstention after a restart.
    UngatedPrepare,
    /// A VIEW-CHANGE carries no certificate.
    CertificateDropped,
    /// A NEW-VIEW's base is believed.
    NewViewUnchecked,
    /// R1: a restarted primary proposes in its durable view.
    ProposesAgain,
    /// R1: PRE-PREPARE leaves before `ViewEntered` is durable.
    UngatedPrePrepare,
    /// R1: the own lost proposal counts as a sign of rollback.
    NoExemption,
    /// R3: a lost log is not noticed.
    NoFence,
    /// R3: a fence is forgotten by a restart.
    FenceNotDurable,
    /// R3: left with any commit certificate.
    AnyCertificate,
    /// R3: left with a commit certificate above the heights that others report.
    HeightForNonce,
    /// R3: votes again in the view of the certificate it left with.
    SameView,
    /// R3: the nonce is read from the disk.
    NonceFromDisk,
    /// R4: a VIEW-CHANGE for any higher view at any time.
    ViewsSkipped,
    /// 7.6: a replica that asked for a higher view follows a commit certificate back into a lower one.
    FollowsBack,
    /// Certificates compare by (view, height) across epochs.
    EpochIgnored,
    /// A CONFIG block's child before its commit.
    ChildBeforeCommit,
    /// A VIEW-CHANGE may quote a later epoch.
    LaterEpochQuoted,
}

/// What a case plays with. Four replicas vote, one of them may lie.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Views per epoch.
    pub views: &'static [u8],
    /// Blocks above the genesis.
    pub heights: u8,
    /// Who lies.
    pub liar: Option<usize>,
    /// Whether the liar proposes two blocks at one place.
    pub equivocates: bool,
    /// Who never does anything.
    pub silent: Option<usize>,
    /// Who may crash or lose its disk.
    pub unreliable: Option<usize>,
    /// How often it crashes, at most once.
    pub crashes: u8,
    /// How often it loses its disk.
    pub losses: u8,
    /// It begins behind a fence, its first REJOIN sent.
    pub starts_fenced: bool,
    /// Replicas learn commit certificates and follow them (protocol.md 7.6).
    pub learns: bool,
    /// What is wrong.
    pub bug: Option<Bug>,
}

impl Setup {
    /// One height, three views, nobody lies or fails.
    pub const CALM: Self = Self {
        views: &[3],
        heights: 1,
        liar: None,
        equivocates: true,
        silent: None,
        unreliable: None,
        crashes: 0,
        losses: 0,
        starts_fenced: false,
        learns: false,
        bug: None,
    };

    /// REJOIN nonces that can be drawn.
    #[must_use]
    pub fn nonces(&self) -> u8 {
        let fresh = if self.bug == Some(Bug::NonceFromDisk) { 0 } else { self.losses };
        u8::from(self.starts_fenced) + fresh
    }
}

/// A case ready to be searched.
pub struct Protocol {
    setup: Setup,
    world: World,
    goals: Vec<&'static str>,
    /// Replicas needed, per phase and for a NEW-VIEW.
    quorum: u32,
}

impl Protocol {
    /// The model of a case; the goals are names of [`rules::GOALS`].
    #[must_use]
    pub fn new(setup: Setup, goals: &[&'static str]) -> Self {
        assert!(setup.crashes <= 1, "what a crash forgets is kept once");
        for goal in goals {
            assert!(rules::GOALS.iter().any(|(name, _)| name == goal), "no goal {goal}");
        }
        let quorum = if setup.bug == Some(Bug::SmallQuorum) { 2 } else { 3 };
        Self { world: World::new(&setup), goals: goals.to_vec(), quorum, setup }
    }

    /// Votes are judged one by one where the planted bug is not one of voting twice.
    fn checks_votes(&self) -> bool {
        let forks = [Bug::VotesBeforeDurable, Bug::UngatedPrepare, Bug::TwoBlocksAccepted];
        !self.setup.bug.is_some_and(|bug| forks.contains(&bug))
    }

    fn has(&self, bug: Bug) -> bool {
        self.setup.bug == Some(bug)
    }
}
