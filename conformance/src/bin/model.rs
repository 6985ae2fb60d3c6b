//! Searches the states of the protocol model.

use std::process::ExitCode;
use std::time::Instant;

use conformance::protocol_model::cases::{Case, PLANTED, RULES, Tier};
use conformance::protocol_model::search::{Report, Verdict};

const HELP: &str = "Searches every state of a small model of the ordering protocol.

  model quick               the rules hold, the planted bugs are found: under a minute
  model nightly | release   the same with larger cases; what is capped is said
  model --mutants           every planted bug alone, with the shortest way to the broken rule
  model --case TEXT         the cases whose name holds TEXT, with the way to a broken rule
  model --list              the names of all cases
";

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
        ["nightly"] => (all().filter(|case| case.tier <= Tier::Nightly).collect(), false),
        ["release"] => (all().collect(), false),
        ["--mutants"] => (PLANTED.iter().collect(), true),
        ["--case", text] => (all().filter(|case| case.name.contains(text)).collect(), true),
        ["--list"] => {
            all().for_each(|case| println!("{:?}: {}", case.tier, case.name));
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    let begun = Instant::now();
    let failed: Vec<&str> =
        chosen.iter().filter(|case| !play(case, shows_trace)).map(|case| case.name).collect();
    println!(
        "{} cases, {} failed {failed:?}, {:.1} s",
        chosen.len(),
        failed.len(),
        begun.elapsed().as_secs_f64()
    );
    if failed.is_empty() && !chosen.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
