//! The tests of the tests: bugs put in one at a time, and which layer finds each, how fast
//! (docs/testing.md, "Planted bugs").
//!
//! Two kinds: those of the simulator's own shell ([`Mutant`]), and with the feature `planted` those in
//! production code. A bug that no layer finds within its budget is a defect of the tests.

use std::time::{Duration, Instant};

use crate::sim::plan::{Mutant, Plan};
use crate::sim::run;

/// Seeds that may be played against one bug.
const SEEDS: u64 = 400;
/// How long, at first and if the tests do not find it either.
#[cfg(feature = "planted")]
const FIRST_LOOK: Duration = Duration::from_secs(20);
const LONG_LOOK: Duration = Duration::from_secs(120);

/// Bugs whose mechanism does not exist yet: name, and what they wait for.
pub const LATER: &[(&str, &str)] = &[
    ("nonce-from-disk", "a plant in the shell, which draws the nonce"),
    ("r1-without-exemption", "a plant in ordering/shown.rs"),
    ("later-epoch-certificate", "liars that quote certificates of later epochs"),
];

/// How a bug died.
struct Death {
    layer: &'static str,
    how: String,
}

/// Plays against all bugs, or against those named in `only`; how many survive.
#[must_use]
pub fn play(only: &[String]) -> usize {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let (mut bugs, mut survivors) = (0, Vec::new());
    let mut tell = |name: &'static str, begun: Instant, death: Option<Death>| {
        bugs += 1;
        let seconds = begun.elapsed().as_secs_f64();
        match death {
            Some(Death { layer, how }) => {
                let how: String = how.chars().take(110).collect();
                println!("{name:<32} {layer:<12} {seconds:>6.1} s  {how}");
            }
            None => {
                println!("{name:<32} SURVIVES     {seconds:>6.1} s");
                survivors.push(name);
            }
        }
    };
    for (name, mutant) in Mutant::ALL {
        if wanted(name) {
            let begun = Instant::now();
            tell(name, begun, simulated(Some(mutant), LONG_LOOK, &|_| {}));
        }
    }
    #[cfg(feature = "planted")]
    for (name, bug) in althing::planted::Bug::ALL {
        if wanted(name) {
            let begun = Instant::now();
            let death = production::find(name, *bug);
            tell(name, begun, death);
        }
    }
    for (name, what) in LATER.iter().filter(|(name, _)| wanted(name)) {
        println!("{name:<32} later: {what}");
    }
    println!("{bugs} planted bugs, {} survive {survivors:?}", survivors.len());
    survivors.len()
}

fn simulated(mutant: Option<Mutant>, budget: Duration, bend: &dyn Fn(&mut Plan)) -> Option<Death> {
    let begun = Instant::now();
    let in_time = |_: &u64| begun.elapsed() < budget;
    (1..=SEEDS).take_while(in_time).find_map(|seed| {
        let mut plan = Plan { mutant, ..Plan::draw(seed) };
        bend(&mut plan);
        let failure = run(plan, false).err()?;
        Some(Death { layer: "simulator", how: format!("seed {seed}: {}", failure.what) })
    })
}

#[cfg(feature = "planted")]
mod production {
    use std::io::Read as _;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use althing::planted::{Bug, choose};

    use super::{Death, FIRST_LOOK, LONG_LOOK, simulated};
    use crate::sim::crash_points::{enumerate, flip_bytes};
    use crate::sim::liars::Lie;
    use crate::sim::plan::{MILLI, Plan, SECOND};

    /// Longer than all tests take on a busy machine.
    const TESTS_HANG: Duration = Duration::from_secs(300);

    pub fn find(name: &str, bug: Bug) -> Option<Death> {
        let look = |budget, bend: &dyn Fn(&mut Plan)| {
            choose(Some(bug));
            let death = simulated(None, budget, bend);
            choose(None);
            death
        };
        look(FIRST_LOOK, &|_| {})
            .or_else(|| crash_points(bug))
            .or_else(|| look(FIRST_LOOK, &|plan| provoke(bug, plan)))
            .or_else(|| tests(name, &["-p", "althing", "--lib"]))
            .or_else(|| tests(name, &["-p", "conformance", "--test", "prune"]))
            .or_else(|| look(LONG_LOOK, &|plan| provoke(bug, plan)))
    }

    /// The fault kinds that a bug needs, in every seed instead of in some.
    fn provoke(bug: Bug, plan: &mut Plan) {
        let lie = |plan: &mut Plan, lie| {
            (plan.n, plan.twins, plan.stay_down, plan.wrong_clock_ms) = (4, 0, 0, 0);
            plan.lies = vec![lie];
        };
        match bug {
            Bug::TwoBlocksPerHeight => lie(plan, Lie::Equivocator),
            Bug::NewViewUnchecked => lie(plan, Lie::TwoNewViews),
            Bug::WinnerByHeight | Bug::ViewChangeWithoutCertificate => lie(plan, Lie::Equivocator),
            Bug::WeakRead => {
                lie(plan, Lie::ReadLiar);
                plan.read_every = 10 * MILLI;
                plan.bundle_every = 10 * MILLI;
                plan.pause_every = SECOND;
            }
            Bug::ReusedReadNonce => {
                plan.n = plan.n.max(4);
                plan.read_every = 10 * MILLI;
                plan.pause_every = SECOND / 2;
                plan.cut_every = SECOND;
            }
            Bug::RetriedSync => plan.disk_fault_every = SECOND / 2,
            Bug::ProposesAgain | Bug::VoteNotPersisted | Bug::UngatedProposal => {
                plan.crash_every = SECOND / 2;
            }
            Bug::LocalCompaction | Bug::RevisionApart | Bug::SessionsLost => {
                plan.checkpoint_log_bytes = 5 << 10;
                plan.crash_every = SECOND;
            }
            _ => {}
        }
    }

    fn crash_points(bug: Bug) -> Option<Death> {
        choose(Some(bug));
        let result = enumerate(3, false).map(drop).and_then(|()| flip_bytes(50).map(drop));
        choose(None);
        result.err().map(|how| Death { layer: "crash-points", how })
    }

    /// The library's own tests, or others, in a process of their own.
    fn tests(name: &str, which: &[&str]) -> Option<Death> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["test", "--quiet", "--profile", "sim"])
            .args(which)
            .args(["--no-default-features", "--features", "planted", "--no-fail-fast"])
            .env("ALTHING_PLANTED", name)
            .env("PROPTEST_FAILURE_PERSISTENCE", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let mut stdout = child.stdout.take()?;
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text).unwrap_or_default()
        });
        let begun = Instant::now();
        let status = loop {
            match child.try_wait().ok()? {
                Some(status) => break status,
                None if begun.elapsed() > TESTS_HANG => {
                    let how = format!("a test still runs after {} s", TESTS_HANG.as_secs());
                    child.kill().ok()?;
                    return Some(Death { layer: "tests", how });
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let text = reader.join().unwrap_or_default();
        if status.success() || !text.contains("test result:") {
            return None;
        }
        let named = |line: &&str| line.contains("::") && !line.contains(' ');
        let mut failed: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("    ")).filter(named).collect();
        failed.sort_unstable();
        failed.dedup();
        let others = failed.len().saturating_sub(1);
        let how = format!("{} and {others} more", failed.first().unwrap_or(&"a test"));
        Some(Death { layer: "tests", how })
    }
}
