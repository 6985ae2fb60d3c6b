//! The protocol model says something: it sees what must happen, and finds what is planted. The larger
//! cases are `--bin model`'s.

use conformance::protocol_model::search::{Report, Verdict, search};
use conformance::protocol_model::{Bug, Protocol, Setup, cases};

const TWO_VIEWS: Setup = Setup { views: &[2], ..Setup::CALM };

fn all_goals(setup: Setup, goals: &[&'static str]) -> Report {
    let report = search(&Protocol::new(setup, goals), 400_000);
    for (goal, depth) in &report.reached {
        assert!(depth.is_some(), "never seen: {goal}");
    }
    report
}

#[test]
fn commits_happen_in_every_view_and_certificates_are_carried_over() {
    let setup = Setup { liar: Some(0), ..TWO_VIEWS };
    let goals = ["commit in view 0", "commit in view 1", "carried certificate"];
    let report = all_goals(setup, &goals);
    assert_eq!(report.verdict, Verdict::Exhausted);
    assert!(report.states > 5_000, "{} states", report.states);
}

#[test]
fn a_replica_without_its_disk_leaves_the_fence_and_its_votes_count() {
    let setup = Setup {
        heights: 2,
        liar: Some(0),
        equivocates: false,
        unreliable: Some(3),
        losses: 1,
        ..TWO_VIEWS
    };
    let report =
        all_goals(setup, &["commit while fenced", "fence left", "vote after the fence decides"]);
    assert!(!matches!(report.verdict, Verdict::Broken { .. }), "{:?}", report.verdict);
}

#[test]
fn a_restarted_primary_votes_again_with_another_replica_down() {
    let setup = Setup { unreliable: Some(0), crashes: 1, silent: Some(3), ..Setup::CALM };
    let report = all_goals(setup, &["proposal lost in a crash", "vote after the restart decides"]);
    assert_eq!(report.verdict, Verdict::Exhausted);
}

#[test]
fn a_trace_is_a_shortest_run_that_a_reader_can_follow() {
    let setup = Setup { liar: Some(0), bug: Some(Bug::SmallQuorum), ..Setup::CALM };
    let Verdict::Broken { rule, trace } = search(&Protocol::new(setup, &[]), 10_000).verdict else {
        panic!("a quorum of two forks");
    };
    assert_eq!(rule, "a0 and b0 are both committed");
    assert_eq!(trace.len(), 4, "{trace:?}");
    assert!(trace.contains(&"replica 1 PREPAREs a0".to_owned()), "{trace:?}");
}

#[test]
fn every_case_has_a_name_of_its_own_and_every_rule_must_show_something() {
    let all: Vec<_> = cases::RULES.iter().chain(cases::PLANTED).collect();
    for (at, case) in all.iter().enumerate() {
        assert!(all[at + 1..].iter().all(|other| other.name != case.name), "{} twice", case.name);
        assert_eq!(case.goals.is_empty(), case.setup.bug.is_some(), "{}", case.name);
    }
}
