//! The simulated world, quick part: the normal case, a few seeds with faults, seeds that once failed, and
//! the tester's test: one seed run twice is one run. `./test` plays more seeds with `--bin sim`, optimised.

use conformance::sim::crash_points::{enumerate, flip_bytes};
use conformance::sim::plan::{Mutant, Plan};
use conformance::sim::run;

/// Seeds with faults that every run of the tests plays, unoptimised.
const SEEDS: u64 = 3;

fn expect(plan: Plan) -> conformance::sim::world::Summary {
    let seed = plan.seed;
    run(plan, false).unwrap_or_else(|failure| {
        panic!(
            "seed {seed} fails at {} us, event {}: {}\n  cargo run -p conformance \
             --no-default-features --profile sim --bin sim -- --seed {seed} --verbose",
            failure.time, failure.events, failure.what
        )
    })
}

#[test]
fn every_size_orders_writes_and_answers_reads_when_nothing_fails() {
    for n in [1, 3, 4] {
        let summary = expect(Plan::calm(1, n));
        assert!(summary.writes > 100, "{n} replicas acknowledge {} writes", summary.writes);
        assert!(summary.reads > 10, "{n} replicas answer {} reads", summary.reads);
        assert_eq!(summary.seen.get("view left"), None, "{n} replicas stay in view 0");
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in [1, 3] {
        let (one, two) = (expect(Plan::draw(seed)), expect(Plan::draw(seed)));
        assert_eq!((one.audit, one.events), (two.audit, two.events), "seed {seed}");
    }
}

#[test]
fn seeds_with_faults_break_no_rule() {
    let mut acknowledged = 0;
    for seed in 1..=SEEDS {
        acknowledged += expect(Plan::draw(seed)).writes;
    }
    assert!(acknowledged > 200, "faults do not stop everything: {acknowledged} writes");
}

#[test]
fn seeds_that_once_failed_stay_repaired() {
    let text = include_str!("../../vectors/seeds.txt");
    for line in text.lines() {
        let seed = line.split('#').next().unwrap_or_default().trim();
        if !seed.is_empty() {
            expect(Plan::draw(seed.parse().expect("a seed is a number")));
        }
    }
}

/// In the first a replica once waited for ever for a silent source that its turns came back to, in the
/// second one stopped itself when a page of an older view came behind a certificate of a newer one, in
/// the third one was away while all others were replaced, and knew nobody.
#[test]
fn members_that_change_all_the_time_break_no_rule() {
    for seed in [30, 202, 420] {
        let mut plan = Plan::draw(seed);
        plan.churn();
        expect(plan);
    }
}

/// faults.md B21: safety breaks, every honest replica stops, and what they hold names f + 1 liars.
#[test]
fn one_liar_too_many_forks_the_chain_and_is_named_by_all() {
    let mut forks = 0;
    for seed in 1..=3 {
        let summary = expect(Plan::beyond(seed));
        forks += summary.seen.get("fork detected by all").copied().unwrap_or(0);
    }
    assert!(forks > 0, "f + 1 liars broke nothing in three seeds");
}

/// The common ones here; `--bin sim -- --mutants` looks for all of them.
#[test]
fn planted_bugs_are_found() {
    for mutant in [Mutant::Ungated, Mutant::EagerRead, Mutant::ForgetsView, Mutant::OtherRoot] {
        let finds = |seed| run(Plan { mutant: Some(mutant), ..Plan::draw(seed) }, false).is_err();
        assert!((1..=12).any(finds), "no seed of 12 finds {mutant:?}");
    }
}

/// Every so many-th operation here; `--bin sim -- --crash-points` takes them all.
#[test]
fn every_crash_point_of_a_small_workload_recovers() {
    let points = enumerate(11, false).unwrap_or_else(|why| panic!("{why}"));
    assert!(points.crashes > 40, "{points:?}");
    let points = enumerate(41, true).unwrap_or_else(|why| panic!("{why}"));
    assert!(points.nested > 4, "{points:?}");
}

#[test]
fn a_changed_byte_of_a_log_is_never_taken_for_its_end() {
    let (refused, same, cut) = flip_bytes(37).unwrap_or_else(|why| panic!("{why}"));
    assert!(refused > 100 && refused > 10 * cut, "{refused} refused, {same} as before, {cut} cut");
}
