//! Runs seeds of the simulated world.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use conformance::bank;
use conformance::scenarios;
use conformance::sim::crash_points;
use conformance::sim::plan::{Mutant, Plan};
use conformance::sim::run;

const HELP: &str = "Runs seeds of the simulated world: production ordering, apply, state and log.

  sim --seed N [--verbose]   one seed; --verbose prints every event
  sim --runs N [--from N]    N seeds, from 1 or from the one named
  sim --seconds N [--from N] seeds until so much time has passed
  sim --replay FILE          the seeds in a file, one per line, `#` begins a comment
  --all-seen                 fails if something that the table of scenarios needs was never seen
  --beyond                   f + 1 liars: what they break must be found by all and name them
  --calm REPLICAS            no faults, this many replicas
  --mutant NAME              with a bug put in on purpose; a seed that finds it fails
  sim --crash-points [N]     a crash at every (N-th) disk operation, and in the recovery from it
  sim --mutants [NAME...]    every bug of the bank, by name or number, until a layer of the tests
                             finds it; fails if none does. Those in production code need the
                             feature `planted`
";

const COMMAND: &str = "cargo run -p conformance --no-default-features --profile sim --bin sim --";

/// More than any run gets through.
const SEEDS_MAX: u64 = 1 << 20;

struct Arguments {
    seeds: Vec<u64>,
    /// No seed begins later.
    seconds: Option<u64>,
    verbose: bool,
    all_seen: bool,
    beyond: bool,
    calm: Option<usize>,
    mutant: Option<Mutant>,
}

fn arguments() -> Result<Arguments, String> {
    let (mut seed, mut runs, mut from, mut replay, mut seconds) = (None, None, 1, None, None);
    let (mut verbose, mut all_seen, mut beyond) = (false, false, false);
    let (mut calm, mut mutant) = (None, None);
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        match flag.as_str() {
            "--verbose" => verbose = true,
            "--all-seen" => all_seen = true,
            "--beyond" => beyond = true,
            _ => {}
        }
        if ["--verbose", "--all-seen", "--beyond"].contains(&flag.as_str()) {
            continue;
        }
        let value = given.next().ok_or(format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{flag} {value}: not a number"));
        match flag.as_str() {
            "--seed" => seed = Some(number()?),
            "--runs" => runs = Some(number()?),
            "--from" => from = number()?,
            "--seconds" => seconds = Some(number()?),
            "--calm" => calm = Some(usize::try_from(number()?).map_err(|e| e.to_string())?),
            "--mutant" => {
                let named = Mutant::ALL.iter().find(|(name, _)| *name == value);
                let names = Mutant::ALL.map(|(name, _)| name).join(", ");
                let known = named.ok_or(format!("--mutant {value}: one of {names}"))?;
                mutant = Some(known.1);
            }
            "--replay" => replay = Some(value),
            _ => return Err(format!("{flag}: no such flag")),
        }
    }
    let seeds = match (seed, runs, replay) {
        (Some(seed), None, None) => vec![seed],
        (None, Some(runs), None) => (from..from.saturating_add(runs)).collect(),
        (None, None, None) if seconds.is_some() => (from..from.saturating_add(SEEDS_MAX)).collect(),
        (None, None, Some(path)) => read_seeds(&path)?,
        _ => return Err("give one of --seed, --runs, --replay".to_owned()),
    };
    Ok(Arguments { seeds, seconds, verbose, all_seen, beyond, calm, mutant })
}

fn read_seeds(path: &str) -> Result<Vec<u64>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| line.parse().map_err(|_| format!("{path}: `{line}` is no seed")))
        .collect()
}

/// All crash points, or with a number behind the flag every so many-th.
fn crash_points() -> ExitCode {
    let stride = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(1);
    let begun = Instant::now();
    let points = crash_points::enumerate(stride, true);
    let flips = crash_points::flip_bytes(usize::try_from(stride).unwrap_or(1));
    println!("crash points, every {stride}: {points:?} in {:.1} s", begun.elapsed().as_secs_f64());
    println!("bytes of a log changed (refused, same, last batch cut): {flips:?}");
    if points.is_ok() && flips.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--mutants") {
        std::panic::set_hook(Box::new(|_| {}));
        let only: Vec<String> = std::env::args().skip(2).collect();
        let wrong = bank::play(&only);
        return if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if std::env::args().nth(1).as_deref() == Some("--crash-points") {
        std::panic::set_hook(Box::new(|_| {}));
        return crash_points();
    }
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    // A panic is reported with its seed; its own message is not lost, see `run`.
    if !arguments.verbose {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let begun = Instant::now();
    let (mut events, mut failed) = (0, Vec::new());
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let one = arguments.seeds.len() == 1;
    let mut played = 0;
    for seed in &arguments.seeds {
        if arguments.seconds.is_some_and(|most| begun.elapsed().as_secs() >= most) {
            break;
        }
        played += 1;
        let drawn = || if arguments.beyond { Plan::beyond(*seed) } else { Plan::draw(*seed) };
        let mut plan = arguments.calm.map_or_else(drawn, |n| Plan::calm(*seed, n));
        plan.mutant = arguments.mutant;
        if one {
            println!("{plan:#?}");
        }
        match run(plan, arguments.verbose) {
            Ok(summary) => {
                events += summary.events;
                summary.seen.iter().for_each(|(what, n)| *seen.entry(what).or_default() += n);
                if one {
                    println!("{summary:#?}");
                }
            }
            Err(failure) => {
                let what: String = failure.what.chars().take(1500).collect();
                println!(
                    "seed {seed} fails at {} us, event {}: {what}",
                    failure.time, failure.events
                );
                println!("  {COMMAND} --seed {seed} --verbose");
                failed.push(*seed);
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    for (what, count) in &seen {
        println!("seen {count:>9} {what}");
    }
    println!(
        "{played} seeds, {} failed {failed:?}, {events} events in {seconds:.1} s: {:.0} a minute",
        failed.len(),
        60.0 * events as f64 / seconds
    );
    let unseen: Vec<String> = match scenarios::counters() {
        Ok(wanted) if arguments.all_seen => {
            wanted.into_iter().filter(|what| !seen.contains_key(what.as_str())).collect()
        }
        _ => Vec::new(),
    };
    if !unseen.is_empty() {
        println!("never seen: {unseen:?}");
        return ExitCode::FAILURE;
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
