//! A seeded world: production ordering, apply, state and log under a simulated network and disk.
//!
//! Nothing in it asks a clock or a random source; a seed is a run, and two runs of a seed have one audit
//! hash. `docs/testing.md` says how to run and replay it.

pub mod audit;
pub mod beyond;
pub mod checkers;
pub mod checkpoint;
pub mod crash_points;
mod damage;
pub mod disk;
mod ending;
pub mod liars;
pub mod machine;
pub mod members;
pub mod network;
pub mod node;
pub mod plan;
pub mod random;
pub mod recovery;
pub mod scheme;
pub mod transfer;
pub mod watchers;
pub mod workload;
pub mod world;

mod shell;

/// Production replay, the very file: it is pure, though it stands in the shell's module.
#[path = "../../../src/node/recover.rs"]
#[allow(dead_code, reason = "the index and the session counter are not simulated")]
mod node_recover;

/// Production bookkeeping of stable checkpoints, the very file.
#[path = "../../../src/node/stable.rs"]
#[allow(dead_code, reason = "not all of it is asked for here")]
mod node_stable;

/// Production repair, the very file.
#[path = "../../../src/node/repair.rs"]
#[allow(dead_code, reason = "where damage is kept is not asked here")]
mod node_repair;

mod prune;

mod proofs;

use plan::Plan;
use world::{Failure, Summary, World};

/// Runs a plan to its end; a panic inside is a failure too.
///
/// # Errors
/// The first broken rule.
pub fn run(plan: Plan, verbose: bool) -> Result<Summary, Failure> {
    let run = std::panic::AssertUnwindSafe(|| World::new(plan, verbose)?.run());
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "without words".to_owned());
        Err(Failure { time: 0, events: 0, what: format!("panic: {text}") })
    })
}
