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
    ("height-instead-of-nonce", "R3 and REJOIN"),
    ("nonce-from-disk", "R3 and REJOIN"),
    ("fence-not-durable", "R3 and REJOIN"),
    ("same-view-after-rejoin", "R3 and REJOIN"),
    ("r1-without-exemption", "R3 and REJOIN"),
    ("r3-skipped", "R3 and REJOIN"),
    ("rank-across-epochs", "epoch changes"),
    ("child-before-config", "epoch changes"),
    ("later-epoch-certificate", "epoch changes"),
    ("value-kept-after-prune", "pruning"),
    ("transferred-chunk-unchecked", "state transfer"),
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
            tell(name, begun, simulated(Some(mutant), LONG_LOOK));
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

fn simulated(mutant: Option<Mutant>, budget: Duration) -> Option<Death> {
    let begun = Instant::now();
    let in_time = |_: &u64| begun.elapsed() < budget;
    (1..=SEEDS).take_while(in_time).find_map(|seed| {
        let failure = run(Plan { mutant, ..Plan::draw(seed) }, false).err()?;
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
    use crate::core_search::{Search, search};

    /// Longer than all tests take on a busy machine.
    const TESTS_HANG: Duration = Duration::from_secs(300);

    pub fn find(name: &str, bug: Bug) -> Option<Death> {
        let look = |budget| {
            choose(Some(bug));
            let death = simulated(None, budget);
            choose(None);
            death
        };
        look(FIRST_LOOK)
            .or_else(|| searched(bug))
            .or_else(|| unit_tests(name))
            .or_else(|| look(LONG_LOOK))
    }

    /// Every run of four cores with one deviation.
    fn searched(bug: Bug) -> Option<Death> {
        choose(Some(bug));
        let bounds = |liar| Search { liar, deviations: 1, cap: 10_000, heal_every: 10 };
        let broken = [None, Some(0b0110)].into_iter().find_map(|liar| search(&bounds(liar)).broken);
        choose(None);
        let (what, plan) = broken?;
        Some(Death { layer: "core search", how: format!("{what}, with {plan:?}") })
    }

    /// The library's own tests, in a process of their own.
    fn unit_tests(name: &str) -> Option<Death> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["test", "--quiet", "--profile", "sim", "-p", "althing", "--lib"])
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
