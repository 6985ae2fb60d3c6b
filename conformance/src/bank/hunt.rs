//! One bug against one layer of the tests.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[cfg(not(feature = "planted"))]
use althing::planted::Bug;
#[cfg(feature = "planted")]
use althing::planted::choose;

use crate::bank::table::{Hunt, Plant};
use crate::bank::{Death, Place};
use crate::protocol_model::cases::Case;
use crate::protocol_model::search::{Report, Verdict, search};
use crate::protocol_model::{Protocol, Setup};
use crate::sim::crash_points::{enumerate, flip_bytes};
use crate::sim::plan::{Mutant, Plan};
use crate::sim::run;

/// Longer than any test takes on a busy machine.
const TEST_HANGS: Duration = Duration::from_secs(300);

/// Test programs that were built.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Program {
    Library,
    Prune,
}

/// What was learnt on the way.
#[derive(Default)]
pub struct Hunter {
    programs: BTreeMap<Program, Option<PathBuf>>,
    crash_points_hold: Option<bool>,
    /// Checks that fired without a bug.
    unfounded: Vec<String>,
}

impl Hunter {
    /// Hunts a bug through its layers.
    pub fn kill(&mut self, plant: &Plant, place: &Place) -> Option<Death> {
        plant.hunts.iter().find_map(|hunt| match (hunt, place) {
            (Hunt::Seeds(most, bend), _) => self.simulate(*most, *bend, place),
            (Hunt::CrashPoints, _) => self.crash_points(place),
            (Hunt::Library(test), _) => self.test(Program::Library, test, plant.name),
            (Hunt::Prune(test), _) => self.test(Program::Prune, test, plant.name),
            (Hunt::Model, Place::Model(case)) => self.model(case),
            (Hunt::Model, _) => None,
        })
    }

    /// What fired without a bug: a bug of the tests, or a real one.
    pub fn found_without_a_bug(self) -> Vec<String> {
        self.unfounded
    }

    fn simulate(&mut self, most: u64, bend: fn(&mut Plan), place: &Place) -> Option<Death> {
        let mutant = if let Place::Shell(mutant) = place { Some(*mutant) } else { None };
        let plan = |seed, mutant: Option<Mutant>| {
            let mut plan = Plan { mutant, ..Plan::draw(seed) };
            bend(&mut plan);
            plan
        };
        (1..=most).find_map(|seed| {
            let failed = with(place, || run(plan(seed, mutant), false)).err()?;
            if let Err(failure) = run(plan(seed, None), false) {
                self.unfounded.push(format!("seed {seed} without a bug: {}", failure.what));
                return None;
            }
            let check = format!("seed {seed}: {}", failed.what);
            Some(Death { layer: "simulator", tried: seed, check })
        })
    }

    fn crash_points(&mut self, place: &Place) -> Option<Death> {
        let play = || enumerate(3, false).map(drop).and_then(|()| flip_bytes(50).map(drop));
        let check = with(place, play).err()?;
        let holds = *self.crash_points_hold.get_or_insert_with(|| play().is_ok());
        if !holds {
            self.unfounded.push("crash points without a bug".to_owned());
            return None;
        }
        Some(Death { layer: "crash points", tried: 1, check })
    }

    fn model(&mut self, case: &Case) -> Option<Death> {
        let (Report { verdict, states, .. }, _) = case.play();
        let Verdict::Broken { rule, trace } = verdict else { return None };
        // The same world with the rule kept, as far as the search went.
        let sound = Setup { bug: None, ..case.setup };
        let sound = search(&Protocol::new(sound, &[]), states.max(10_000));
        if let Verdict::Broken { rule, .. } = sound.verdict {
            self.unfounded.push(format!("model, {} without a bug: {rule}", case.name));
            return None;
        }
        let check = format!("{rule}, after {} steps", trace.len());
        Some(Death { layer: "model", tried: states as u64, check })
    }

    fn test(&mut self, of: Program, test: &str, bug: &str) -> Option<Death> {
        let program = self.programs.entry(of).or_insert_with(|| build(of)).clone();
        let Some(program) = program else {
            self.unfounded.push(format!("the program of the test {test} does not build"));
            return None;
        };
        let check = fails(&program, test, Some(bug))?;
        if let Some(how) = fails(&program, test, None) {
            self.unfounded.push(format!("{test} without a bug: {how}"));
            return None;
        }
        Some(Death { layer: "test", tried: 1, check: format!("{test}: {check}") })
    }
}

/// With the bug in, if it is one of production code.
fn with<T>(place: &Place, play: impl FnOnce() -> T) -> T {
    let bug = if let Place::Production(bug) = place { Some(*bug) } else { None };
    choose(bug);
    let result = play();
    choose(None);
    result
}

/// Nothing is compiled in.
#[cfg(not(feature = "planted"))]
fn choose(_bug: Option<Bug>) {}

/// The target directory of this program, if it was built with the profile `sim`.
fn built_in() -> Option<PathBuf> {
    let profile = std::env::current_exe().ok()?.parent()?.to_owned();
    profile.ends_with("sim").then(|| profile.parent().map(Path::to_owned))?
}

/// Builds a test program with the bugs in it; none if that fails.
fn build(program: Program) -> Option<PathBuf> {
    let mut which: Vec<OsString> = match program {
        Program::Library => ["-p", "althing", "--lib"].map(OsString::from).to_vec(),
        Program::Prune => ["-p", "conformance", "--test", "prune", "--no-default-features"]
            .map(OsString::from)
            .to_vec(),
    };
    if let (Program::Prune, Some(target)) = (program, built_in()) {
        // What this program was built with is there already.
        which.extend(["--profile", "sim", "--target-dir"].map(OsString::from));
        which.push(target.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["test", "--locked", "--quiet", "--no-run", "--message-format", "json"])
        .args(which)
        .args(["--features", "planted"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |line: &str| {
        let rest = line.split_once("\"executable\":\"")?.1;
        Some(PathBuf::from(rest.split_once('"')?.0))
    };
    text.lines().filter_map(of).next_back().filter(|_| output.status.success())
}

/// Runs one test in a process of its own; how it failed, if it did.
fn fails(program: &Path, test: &str, bug: Option<&str>) -> Option<String> {
    let mut command = Command::new(program);
    command
        .arg(test)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env_remove("ALTHING_PLANTED")
        .env("PROPTEST_FAILURE_PERSISTENCE", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(bug) = bug {
        command.env("ALTHING_PLANTED", bug);
    }
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
            None if begun.elapsed() > TEST_HANGS => {
                child.kill().ok()?;
                let _status = child.wait();
                return Some(format!("still runs after {} s", TEST_HANGS.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let text = reader.join().unwrap_or_default();
    if status.success() {
        let ran = !text.contains(" 0 passed");
        return if ran || bug.is_some() { None } else { Some("there is no such test".to_owned()) };
    }
    let mut lines = text.lines().skip_while(|line| !line.contains("panicked at"));
    let message = lines.nth(1).unwrap_or("failed");
    Some(message.trim().to_owned())
}
