//! Seeded random programs on a real etcd and on Althing: every reply, code, message, revision and watch
//! event equal. What differs is cut down to the few requests that matter and printed.
//!
//! `ALTHING_DIFFERENTIAL` and `ALTHING_DIFFERENTIAL_NETWORK` say how many operations (a transaction
//! counts with what is in it), `ALTHING_SEED` from which seed on.

mod differences;
mod generate;
mod lines;
mod play;
mod program;
mod shrink;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use conformance::cluster::Target;
use conformance::network::Network;
use conformance::peers;

use self::generate::{Generator, Kind};
use self::play::Player;
use self::program::Step;
use crate::{program_under_test, start};

/// bcrypt at its least cost: a login is not what is tested.
const FLAGS: [&str; 1] = ["--bcrypt-cost=4"];
/// Servers are fresh for each program, so that a difference needs nothing from before it.
const OPERATIONS_PER_PROGRAM: u64 = 4_000;
/// What hides the waiting of one program behind the work of others.
const PROGRAMS_AT_ONCE: u64 = 4;

/// What is judged.
enum Judged {
    /// As a single server, started by etcd's flags.
    Single(Target),
    /// As replicas of four organisations, each request to any of them.
    Network(Network),
}

impl Judged {
    fn start(replicas: usize) -> Judged {
        match replicas {
            1 => Judged::Single(start(&program_under_test(), &FLAGS)),
            count => Judged::Network(Network::start(count)),
        }
    }

    fn player(&self, seed: u64) -> Player {
        match self {
            Judged::Single(target) => Player::new(vec![target.client()], seed),
            Judged::Network(network) => {
                Player::new(network.replicas.iter().map(|r| r.client()).collect(), seed)
            }
        }
    }
}

/// A program that was answered differently.
pub struct Difference {
    kind: Kind,
    seed: u64,
    replicas: usize,
    steps: Vec<Step>,
    /// What the last step was answered by etcd, and by Althing.
    answers: [String; 2],
}

/// What a run did.
#[derive(Default)]
struct Tally {
    operations: AtomicU64,
    requests: AtomicU64,
    refused: AtomicU64,
}

/// Plays a random program of `count` operations on the oracle; the program and what was answered.
fn compose(kind: Kind, seed: u64, count: u64) -> (Vec<Step>, Vec<String>) {
    let oracle = Target::etcd(&FLAGS);
    let mut player = Player::new(vec![oracle.client()], seed);
    let mut generator = Generator::new(kind, seed);
    let (mut steps, mut answers) = (Vec::new(), Vec::new());
    let mut pending = generator.opening();
    let mut operations = 0;
    while operations < count {
        for step in pending.drain(..) {
            let answer = player.play(&step);
            if differences::is_the_end_of_etcd(&answer) {
                return (steps, answers);
            }
            operations += step.operations();
            answers.push(answer);
            steps.push(step);
        }
        generator.revision = player.revision;
        pending = generator.next();
    }
    answers.push(player.play(&Step::Settle));
    steps.push(Step::Settle);
    (steps, answers)
}

/// Plays `steps` and stops at the first answer that is not `expected`; its index and text.
fn first_difference(
    player: &mut Player,
    steps: &[Step],
    expected: &[String],
) -> Option<(usize, String)> {
    steps.iter().zip(expected).enumerate().find_map(|(index, (step, expected))| {
        let found = player.play(step);
        (found != *expected).then_some((index, found))
    })
}

/// Plays `steps` on both, each fresh; the first answers that differ.
pub fn differs(replicas: usize, seed: u64, steps: &[Step]) -> Option<(usize, String, String)> {
    let oracle = Target::etcd(&FLAGS);
    let mut player = Player::new(vec![oracle.client()], seed);
    let expected: Vec<String> = steps.iter().map(|step| player.play(step)).collect();
    let judged = Judged::start(replicas);
    let (index, found) = first_difference(&mut judged.player(seed), steps, &expected)?;
    Some((index, expected[index].clone(), found))
}

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Programs from consecutive seeds until `count` requests were compared.
fn compare_programs(replicas: usize, count: u64, kinds: &[Kind], at_once: u64) {
    let first_seed = number_from("ALTHING_SEED", 1);
    let per_program = OPERATIONS_PER_PROGRAM.min(count);
    let programs = count.div_ceil(per_program);
    let (next, tally) = (AtomicU64::new(0), Tally::default());
    let (failed, found) = (AtomicBool::new(false), Mutex::new(None));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(programs) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= programs || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = first_seed + index;
                    let kind = kinds[usize::try_from(seed).expect("small") % kinds.len()];
                    let (steps, expected) = compose(kind, seed, per_program);
                    let refused = expected.iter().filter(|a| a.starts_with("error")).count();
                    let operations = steps.iter().map(Step::operations).sum();
                    tally.operations.fetch_add(operations, Ordering::Relaxed);
                    tally.requests.fetch_add(steps.len() as u64, Ordering::Relaxed);
                    tally.refused.fetch_add(refused as u64, Ordering::Relaxed);
                    let judged = Judged::start(replicas);
                    let mut player = judged.player(seed);
                    if let Some((at, found_there)) =
                        first_difference(&mut player, &steps, &expected)
                    {
                        failed.store(true, Ordering::Relaxed);
                        let steps = steps[..=at].to_vec();
                        let answers = [expected[at].clone(), found_there];
                        let difference = Difference { kind, seed, replicas, steps, answers };
                        found.lock().expect("no panic under it").get_or_insert(difference);
                    }
                }
            });
        }
    });
    let (requests, refused) =
        (tally.requests.load(Ordering::Relaxed), tally.refused.load(Ordering::Relaxed));
    let operations = tally.operations.load(Ordering::Relaxed);
    println!(
        "counted: {operations} operations at n = {replicas} in {requests} requests \
         ({refused} refused) of {programs} programs from seed {first_seed}, {} s",
        started.elapsed().as_secs()
    );
    if let Some(difference) = found.into_inner().expect("no panic under it") {
        panic!("{}", shrink::report(&difference));
    }
    assert!(refused * 2 < requests, "most requests are answered, else little is compared");
}

#[test]
fn random_programs_get_the_same_answers() {
    if peers::available("api::differential", &["etcd", &program_under_test()]) {
        let count = number_from("ALTHING_DIFFERENTIAL", 100_000);
        compare_programs(1, count, &[Kind::Few, Kind::Many, Kind::Users], PROGRAMS_AT_ONCE);
    }
}

/// Users belong to organisations there, so none are in these programs.
#[test]
fn random_programs_get_the_same_answers_from_any_replica() {
    if peers::available("api::differential_network", &["etcd", "althing"]) {
        let count = number_from("ALTHING_DIFFERENTIAL_NETWORK", 10_000);
        compare_programs(4, count, &[Kind::Few, Kind::Many], 2);
    }
}
