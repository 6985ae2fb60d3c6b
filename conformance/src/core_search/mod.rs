//! A bounded search over the production `ordering::Core`: four cores, one height, two views.
//!
//! A run delivers messages in the order they were sent, except where a *deviation* drops one or puts it
//! last, and at one point, or never, all followers give their primary up. Every run with up to so many
//! deviations is played, so nothing depends on a seed. Disks sync at once and clocks stand still in
//! between; the simulator does the rest.

pub(crate) mod bench;

use std::time::{Duration, Instant};

use bench::Bench;

/// What is searched.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// Replica 0, the first primary, lies: it proposes one block to some and another one to the others,
    /// votes for whatever anyone votes for, and asks for the next view without a certificate. A bit per
    /// replica that is shown the first block; none if nobody lies.
    pub liar: Option<u8>,
    /// Messages dropped or put last, at most.
    pub deviations: usize,
    /// Runs at most.
    pub cap: usize,
    /// Of one in so many runs, liveness is judged too: the network heals, and everything must be ordered.
    pub heal_every: usize,
}

/// One thing that does not go as usual, at the delivery of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deviation {
    /// The message is lost.
    Drop,
    /// It comes after all others.
    Last,
    /// All followers time out before it is delivered.
    GiveUp,
}

/// How a search ended.
#[derive(Clone, Debug)]
pub struct Found {
    /// Runs played.
    pub runs: usize,
    /// Steps of all cores.
    pub steps: u64,
    /// Whether all runs within the bounds were played.
    pub exhausted: bool,
    /// Runs in which view 0 committed, view 1 committed, and a certificate was carried between them.
    pub seen: [usize; 3],
    /// Runs that were healed.
    pub healed: usize,
    /// What went wrong in which run.
    pub broken: Option<(String, Vec<(usize, Deviation)>)>,
    /// How long it took.
    pub took: Duration,
}

/// Plays every run within the bounds, few deviations before many.
#[must_use]
pub fn search(search: &Search) -> Found {
    let begun = Instant::now();
    let mut found = Found {
        runs: 0,
        steps: 0,
        exhausted: true,
        seen: [0; 3],
        healed: 0,
        broken: None,
        took: Duration::ZERO,
    };
    let mut level: Vec<Vec<(usize, Deviation)>> = vec![Vec::new()];
    while !level.is_empty() && found.broken.is_none() && found.exhausted {
        let mut next = Vec::new();
        for plan in level {
            if found.runs == search.cap {
                found.exhausted = false;
                break;
            }
            match play(search, &plan, &mut found) {
                Ok(length) => extend(search, &plan, length, &mut next),
                Err(what) => {
                    found.broken = Some((what, plan));
                    break;
                }
            }
        }
        level = next;
    }
    found.took = begun.elapsed();
    found
}

/// The runs with one deviation more, behind the last one.
fn extend(
    search: &Search,
    plan: &[(usize, Deviation)],
    length: usize,
    next: &mut Vec<Vec<(usize, Deviation)>>,
) {
    let gives_up = plan.iter().any(|(_, deviation)| *deviation == Deviation::GiveUp);
    let used = plan.len() - usize::from(gives_up);
    // A message put last, or dropped, behind giving up at the same delivery is a run of its own.
    let from = plan.last().map_or(0, |(at, last)| at + usize::from(*last != Deviation::GiveUp));
    for at in from..length {
        let mut add = |deviation| next.push([plan, &[(at, deviation)]].concat());
        if used < search.deviations {
            add(Deviation::Drop);
            add(Deviation::Last);
        }
        if !gives_up {
            add(Deviation::GiveUp);
        }
    }
}

/// Plays one run; its number of deliveries.
fn play(search: &Search, plan: &[(usize, Deviation)], found: &mut Found) -> Result<usize, String> {
    let heals = found.runs.is_multiple_of(search.heal_every);
    found.runs += 1;
    let run = std::panic::AssertUnwindSafe(|| -> Result<(usize, Bench), String> {
        let mut bench = Bench::new(search.liar)?;
        let length = bench.run(plan)?;
        if heals {
            bench.heal()?;
        }
        Ok((length, bench))
    });
    let ended = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    let (length, bench) = ended?;
    found.steps += bench.steps;
    found.healed += usize::from(heals);
    for (count, seen) in found.seen.iter_mut().zip(bench.seen()) {
        *count += usize::from(seen);
    }
    Ok(length)
}
