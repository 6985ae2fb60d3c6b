//! Cuts a differing program down to what still differs, and prints it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::program::Step;
use super::{Difference, differs, lines};

/// Cutting stops then; what is left is printed.
const PATIENCE: Duration = Duration::from_secs(240);

/// Drops ever smaller pieces as long as it still differs.
fn shrink(difference: &Difference) -> Vec<Step> {
    let mut steps = difference.steps.clone();
    let deadline = Instant::now() + PATIENCE;
    let still = |steps: &[Step]| differs(difference.replicas, difference.seed, steps);
    let mut piece = (steps.len() / 2).max(1);
    while Instant::now() < deadline {
        let (mut at, mut dropped) = (0, false);
        while at < steps.len() && Instant::now() < deadline {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + piece).min(steps.len()));
            match still(&fewer) {
                Some((index, ..)) => {
                    fewer.truncate(index + 1);
                    steps = fewer;
                    dropped = true;
                }
                None => at += piece,
            }
        }
        match (piece, dropped) {
            (1, false) => break,
            (1, true) => {}
            _ => piece = (piece / 2).max(1),
        }
    }
    steps
}

/// The lines that are not in both answers.
fn contrast(expected: &str, found: &str) -> String {
    let only = |this: &str, other: &str| -> String {
        let lines = this.lines().filter(|line| !other.lines().any(|there| there == *line));
        lines.map(|line| format!("    {line}\n")).collect()
    };
    let (here, there) = (only(expected, found), only(found, expected));
    match here.is_empty() && there.is_empty() {
        true => format!("in another order:\netcd:\n{expected}\nAlthing:\n{found}\n"),
        false => format!("etcd:\n{here}Althing:\n{there}"),
    }
}

/// What to read when a program was answered differently.
pub fn report(difference: &Difference) -> String {
    let (kind, seed) = (difference.kind, difference.seed);
    let mut text = format!("seed {seed} ({kind:?}, {} replica(s)) ", difference.replicas);
    let again = differs(difference.replicas, seed, &difference.steps);
    if again.is_none() {
        text.push_str("differed once and not again; its last steps were:\n");
        for step in &difference.steps[difference.steps.len().saturating_sub(20)..] {
            writeln!(text, "  {step}").expect("text");
        }
        let [expected, found] = &difference.answers;
        return text + &contrast(expected, found);
    }
    let steps = shrink(difference);
    let last = differs(difference.replicas, seed, &steps).or(again);
    let (_, expected, found) = last.expect("it differed");
    writeln!(text, "differs:").expect("text");
    for step in &steps {
        writeln!(text, "  {step}").expect("text");
    }
    text.push_str(&contrast(&expected, &found));
    text.push_str("by etcdctl:\n");
    for step in &steps {
        writeln!(text, "  {}", lines::etcdctl(step)).expect("text");
    }
    text
}
