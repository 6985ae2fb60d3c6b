//! The cases that are played: rules that must hold, planted bugs that must be found.

use crate::protocol_model::search::{Report, Verdict, search};
use crate::protocol_model::{Bug, Protocol, Setup};

/// How long a run may take: each holds the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// In `./test`.
    Quick,
    /// In `./test nightly` and `./test release`.
    Nightly,
}

/// One search.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in the output.
    pub name: &'static str,
    /// When it is played.
    pub tier: Tier,
    /// What is played; with a bug, a broken rule is expected, else none.
    pub setup: Setup,
    /// Most states.
    pub cap: usize,
    /// What must be reached, or the search showed nothing.
    pub goals: &'static [&'static str],
}

impl Case {
    /// Searches, and says what is wrong with the outcome.
    #[must_use]
    pub fn play(&self) -> (Report, Option<String>) {
        let report = search(&Protocol::new(self.setup, self.goals), self.cap);
        let wrong = match (&report.verdict, self.setup.bug) {
            (Verdict::Broken { rule, .. }, None) => Some(rule.clone()),
            (Verdict::Exhausted | Verdict::Capped, Some(_)) => {
                Some("the planted bug survives".to_owned())
            }
            _ => {
                let missed = report.reached.iter().find(|(_, depth)| depth.is_none());
                missed.map(|(goal, _)| format!("never seen: {goal}"))
            }
        };
        (report, wrong)
    }
}

const CALM: Setup = Setup::CALM;
const LIAR_0: Setup = Setup { liar: Some(0), ..CALM };
const LIAR_1: Setup = Setup { liar: Some(1), ..CALM };
/// Two heights in chain order, with range votes.
const CHAIN: Setup = Setup { heights: 2, views: &[2], ..CALM };
const CHAIN_0: Setup = Setup { liar: Some(0), ..CHAIN };
const CHAIN_1: Setup = Setup { liar: Some(1), ..CHAIN };
/// A replica that may lose its disk, beside a liar.
const FENCE_0: Setup = Setup { unreliable: Some(3), losses: 1, ..CHAIN_0 };
const FENCE_1: Setup = Setup { unreliable: Some(3), losses: 1, ..CHAIN_1 };
/// The same with one proposal per place: fewer states.
const ONE_0: Setup = Setup { equivocates: false, ..FENCE_0 };
const ONE_1: Setup = Setup { equivocates: false, ..FENCE_1 };
/// A primary that may crash while its proposal is being written.
const RESTART: Setup = Setup { unreliable: Some(0), crashes: 1, ..CALM };
const WITH_ONE_DOWN: Setup = Setup { silent: Some(3), ..RESTART };
const BESIDE_A_LIAR: Setup = Setup { liar: Some(3), ..RESTART };
/// The second epoch has replica 4 in place of replica 1; replica 3 lies.
const EPOCHS: Setup = Setup { views: &[2, 2], heights: 2, liar: Some(3), ..CALM };

const COMMITS: &[&str] = &[
    "commit in view 0",
    "commit in view 1",
    "commit in view 2",
    "carried certificate",
    "carried over two views",
];
const FOLLOWS: &[&str] = &["commit in view 1", "follows a certificate"];
const HEIGHTS: &[&str] = &["two heights committed", "carried certificate"];
const FENCED: &[&str] =
    &["commit while fenced", "fence left", "vote after the fence decides", "carried certificate"];
const RESTARTED: &[&str] = &["vote after the restart decides", "proposal lost in a crash"];
const SWITCHED: &[&str] = &["commit in the next epoch", "view change in the next epoch"];

/// Searches that are meant to end by themselves stop here all the same.
const ALL: usize = 40_000_000;

const fn rule(
    name: &'static str,
    tier: Tier,
    setup: Setup,
    goals: &'static [&'static str],
) -> Case {
    Case { name, tier, setup, cap: ALL, goals }
}

const fn capped(case: Case, cap: usize) -> Case {
    Case { cap, ..case }
}

const fn planted(name: &'static str, bug: Bug, setup: Setup) -> Case {
    let setup = Setup { bug: Some(bug), ..setup };
    Case { name, tier: Tier::Quick, setup, cap: 6_000_000, goals: &[] }
}

const fn later(case: Case) -> Case {
    Case { tier: Tier::Nightly, ..case }
}

use Tier::{Nightly, Quick};

/// The rules, which must hold.
pub const RULES: &[Case] = &[
    rule("votes, views 0-2, nobody lies", Quick, CALM, COMMITS),
    rule("votes, views 0-2, primary 0 lies", Quick, LIAR_0, COMMITS),
    rule("votes, views 0-2, primary 1 lies", Quick, LIAR_1, COMMITS),
    rule("follow, views 0-2, primary 0 lies", Quick, Setup { learns: true, ..LIAR_0 }, FOLLOWS),
    rule("chain, views 0-1, primary 0 lies", Quick, CHAIN_0, HEIGHTS),
    rule("fence, views 0-1, primary 0 lies once", Quick, ONE_0, FENCED),
    rule("fence, views 0-1, primary 1 lies once", Quick, ONE_1, FENCED),
    rule("restart of primary 0, replica 3 down", Quick, WITH_ONE_DOWN, RESTARTED),
    rule("restart of primary 0, replica 3 lies", Quick, BESIDE_A_LIAR, RESTARTED),
    rule(
        "epochs, 2 and 1 views",
        Quick,
        Setup { views: &[2, 1], ..EPOCHS },
        &["commit in the next epoch"],
    ),
    rule("follow, views 0-2, nobody lies", Nightly, Setup { learns: true, ..CALM }, FOLLOWS),
    rule("follow, views 0-2, primary 1 lies", Nightly, Setup { learns: true, ..LIAR_1 }, FOLLOWS),
    rule(
        "follow, two heights, primary 0 lies",
        Nightly,
        Setup { learns: true, ..CHAIN_0 },
        FOLLOWS,
    ),
    rule(
        "follow, two heights, primary 1 lies",
        Nightly,
        Setup { learns: true, ..CHAIN_1 },
        FOLLOWS,
    ),
    rule("chain, views 0-1, nobody lies", Nightly, CHAIN, HEIGHTS),
    rule("chain, views 0-1, primary 1 lies", Nightly, CHAIN_1, HEIGHTS),
    rule("fence, views 0-1, primary 0 lies", Nightly, FENCE_0, FENCED),
    rule("fence, views 0-1, primary 1 lies", Nightly, FENCE_1, FENCED),
    rule(
        "fence of primary 1, primary 0 lies",
        Nightly,
        Setup { unreliable: Some(1), ..FENCE_0 },
        FENCED,
    ),
    rule(
        "fence of primary 0, primary 1 lies",
        Nightly,
        Setup { unreliable: Some(0), ..FENCE_1 },
        &["commit while fenced", "fence left"],
    ),
    rule(
        "fence, twice, primary 0 lies once",
        Nightly,
        Setup { starts_fenced: true, ..ONE_0 },
        FENCED,
    ),
    rule(
        "fence, twice, primary 1 lies once",
        Nightly,
        Setup { starts_fenced: true, ..ONE_1 },
        FENCED,
    ),
    rule(
        "restart of primary 1, primary 0 lies",
        Nightly,
        Setup { unreliable: Some(1), ..Setup { liar: Some(0), ..RESTART } },
        RESTARTED,
    ),
    rule("epochs, 2 and 2 views", Nightly, EPOCHS, SWITCHED),
    capped(rule("restart of primary 0, nobody lies", Nightly, RESTART, RESTARTED), 8_000_000),
    capped(
        rule("votes, views 0-3, primary 0 lies", Nightly, Setup { views: &[4], ..LIAR_0 }, COMMITS),
        8_000_000,
    ),
    capped(
        rule(
            "chain, views 0-2, primary 0 lies",
            Nightly,
            Setup { views: &[3], ..CHAIN_0 },
            HEIGHTS,
        ),
        8_000_000,
    ),
    capped(
        rule(
            "fence, views 0-2, primary 0 lies once",
            Nightly,
            Setup { views: &[3], ..ONE_0 },
            FENCED,
        ),
        8_000_000,
    ),
];

/// The planted bugs, which must be found.
pub const PLANTED: &[Case] = &[
    planted(
        "M1 votes before they are durable",
        Bug::VotesBeforeDurable,
        Setup { unreliable: Some(3), crashes: 1, ..LIAR_0 },
    ),
    planted(
        "M2 winner by height first",
        Bug::WinnerByHeight,
        Setup { views: &[3], equivocates: false, ..CHAIN_0 },
    ),
    planted("M3 quorum q-1", Bug::SmallQuorum, LIAR_0),
    planted(
        "M4 two blocks accepted",
        Bug::TwoBlocksAccepted,
        Setup { unreliable: Some(3), ..LIAR_0 },
    ),
    planted("M5 COMMIT after VIEW-CHANGE", Bug::CommitAfterViewChange, LIAR_0),
    planted(
        "M6 ungated PREPARE, no abstention",
        Bug::UngatedPrepare,
        Setup { unreliable: Some(3), crashes: 1, ..LIAR_0 },
    ),
    planted("VIEW-CHANGE drops its certificate", Bug::CertificateDropped, LIAR_0),
    planted("NEW-VIEW unchecked", Bug::NewViewUnchecked, LIAR_1),
    planted("R1 proposes again in its view", Bug::ProposesAgain, RESTART),
    planted(
        "R1 PRE-PREPARE ungated",
        Bug::UngatedPrePrepare,
        Setup { unreliable: Some(1), ..RESTART },
    ),
    planted("R1 without its exemption", Bug::NoExemption, WITH_ONE_DOWN),
    planted("R3 skipped", Bug::NoFence, FENCE_0),
    planted("R3 fence not durable", Bug::FenceNotDurable, FENCE_0),
    planted("R3 any certificate", Bug::AnyCertificate, ONE_0),
    planted("R3 height instead of nonce", Bug::HeightForNonce, ONE_0),
    planted("R3 same view after REJOIN", Bug::SameView, ONE_0),
    planted("R3 nonce from the disk", Bug::NonceFromDisk, Setup { starts_fenced: true, ..FENCE_1 }),
    later(planted(
        "R4 views skipped",
        Bug::ViewsSkipped,
        Setup { views: &[3], starts_fenced: true, losses: 0, ..ONE_0 },
    )),
    planted(
        "7.6 follows back",
        Bug::FollowsBack,
        Setup { learns: true, equivocates: false, ..CHAIN_0 },
    ),
    planted("epochs: order by (view, height)", Bug::EpochIgnored, EPOCHS),
    planted(
        "epochs: child before CONFIG commits",
        Bug::ChildBeforeCommit,
        Setup { views: &[2, 1], ..EPOCHS },
    ),
    planted(
        "epochs: later epoch quoted",
        Bug::LaterEpochQuoted,
        Setup { views: &[2, 1], ..EPOCHS },
    ),
];
