//! Searches the states of the protocol model.

use std::process::ExitCode;
use std::time::Instant;

use conformance::core_search::{Found, Search, search};
use conformance::protocol_model::cases::{Case, PLANTED, RULES, Tier};
use conformance::protocol_model::search::{Report, Verdict};

const HELP: &str = "Searches every state of a small model of the ordering protocol.

  model quick               the rules hold, the planted bugs are found: under a minute
  model nightly             the same with larger cases; what is capped is said
  model --mutants           every planted bug alone, with the shortest way to the broken rule
  model --case TEXT         the cases whose name holds TEXT, with the way to a broken rule
  model --list              the names of all cases
";

/// Bounded searches over the production core; the liar shows its first block to 1 and 2, or to 1.
const CORE: &[(&str, Tier, Search)] = &[
    ("core, nobody lies, 1 deviation", Tier::Quick, core(None, 1, 10)),
    ("core, nobody lies, 2 deviations", Tier::Nightly, core(None, 2, 100)),
    ("core, primary 0 lies to one, 1 deviation", Tier::Quick, core(Some(0b0110), 1, 10)),
    ("core, primary 0 lies to one, 2 deviations", Tier::Nightly, core(Some(0b0110), 2, 100)),
    ("core, primary 0 lies to two, 2 deviations", Tier::Nightly, core(Some(0b0010), 2, 100)),
];

const fn core(liar: Option<u8>, deviations: usize, heal_every: usize) -> Search {
    Search { liar, deviations, cap: 100_000, heal_every }
}

/// Plays one search over the core and prints its line; false if a rule is broken.
fn play_core(name: &str, bounds: &Search) -> bool {
    let Found { runs, steps, exhausted, seen, healed, broken, took } = search(bounds);
    let how = if exhausted { "exhausted" } else { "capped" };
    println!(
        "{name:<45} {runs:>9} runs, {steps} steps, {how}, {}, {:.1} s",
        if broken.is_some() { "BROKEN" } else { "holds" },
        took.as_secs_f64()
    );
    println!(
        "   committed in view 0: {}, in view 1: {}, carried over: {}; healed {healed}",
        seen[0], seen[1], seen[2]
    );
    if let Some((what, plan)) = &broken {
        println!("      {what}\n      with {plan:?}");
    } else if seen.contains(&0) {
        println!("   FAILED: something that must happen was never seen");
    }
    broken.is_none() && !seen.contains(&0)
}

/// Plays one case and prints its line; false if it did not end as it must.
fn play(case: &Case, shows_trace: bool) -> bool {
    let (report, wrong) = case.play();
    let Report { verdict, states, depth, took, .. } = &report;
    let (how, outcome) = match verdict {
        Verdict::Exhausted => ("exhausted".to_owned(), "holds"),
        Verdict::Capped => (format!("capped at {}", case.cap), "holds so far"),
        Verdict::Broken { .. } if case.setup.bug.is_some() => ("stopped".to_owned(), "killed"),
        Verdict::Broken { .. } => ("stopped".to_owned(), "BROKEN"),
    };
    println!(
        "{:<45} {states:>9} states, depth {depth:>2}, {how}, {outcome}, {:.1} s",
        case.name,
        took.as_secs_f64()
    );
    if let Verdict::Broken { rule, trace } = verdict
        && (shows_trace || wrong.is_some())
    {
        trace.iter().for_each(|step| println!("      {step}"));
        println!("      => {rule}");
    }
    if let Some(wrong) = &wrong {
        println!("   FAILED: {wrong}");
    }
    wrong.is_none()
}

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = given.iter().map(String::as_str).collect();
    let all = || RULES.iter().chain(PLANTED);
    let (chosen, shows_trace): (Vec<&Case>, bool) = match words[..] {
        ["quick"] => (all().filter(|case| case.tier <= Tier::Quick).collect(), false),
        ["nightly"] => (all().collect(), false),
        ["--mutants"] => (PLANTED.iter().collect(), true),
        ["--case", text] => (all().filter(|case| case.name.contains(text)).collect(), true),
        ["--list"] => {
            all().for_each(|case| println!("{:?}: {}", case.tier, case.name));
            CORE.iter().for_each(|(name, tier, _)| println!("{tier:?}: {name}"));
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    let core = CORE.iter().filter(|(name, tier, _)| match words[..] {
        ["quick"] => *tier == Tier::Quick,
        ["--mutants"] => false,
        ["--case", text] => name.contains(text),
        _ => true,
    });
    let core: Vec<_> = core.collect();
    let begun = Instant::now();
    let mut failed: Vec<&str> =
        chosen.iter().filter(|case| !play(case, shows_trace)).map(|case| case.name).collect();
    // A panic of the core is reported with its run.
    std::panic::set_hook(Box::new(|_| {}));
    failed.extend(core.iter().filter(|(name, _, bounds)| !play_core(name, bounds)).map(|it| it.0));
    let played = chosen.len() + core.len();
    println!(
        "{played} cases, {} failed {failed:?}, {:.1} s",
        failed.len(),
        begun.elapsed().as_secs_f64()
    );
    if failed.is_empty() && played > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
