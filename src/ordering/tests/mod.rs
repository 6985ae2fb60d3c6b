//! Several cores in one seeded world: instant execution, a log that loses its unsynced end, a network
//! that reorders and drops. The big simulator lives in `conformance`; this one finds most of it first.

mod checkpoints;
mod epochs;
mod evidence;
mod feed;
mod fence;
mod lies;
mod owned;
mod scenarios_liveness;
mod scenarios_safety;
mod tenure;
mod transfer;
mod world;

use world::{Options, World};

use super::*;
use crate::chain::Phase;
use crate::types::{Height, ReplicaId, View};

fn calm(n: u16, seed: u64) -> World {
    World::begun(n, seed, Options::default())
}

#[test]
fn every_size_orders_what_every_origin_submits() {
    for n in [1, 2, 3, 4, 5, 7] {
        let mut world = calm(n, 7);
        for round in 0..5 {
            for origin in 0..n {
                world.submit(origin);
            }
            world.run_ms(20 + round);
        }
        assert!(world.run_until_ordered(3000), "n = {n}: {}", world.describe());
        assert!(world.cores().all(|core| core.status().view == View(0)), "n = {n}");
    }
}

#[test]
fn an_idle_network_proposes_nothing() {
    let mut world = calm(4, 1);
    world.run_ms(5000);
    assert!(world.cores().all(|core| core.status().committed == Height(0)));
    assert!(world.cores().all(|core| core.status().has_leader));
}

#[test]
fn leases_carry_time_forward_by_tick_blocks() {
    let mut world = World::begun(4, 3, Options { leases: true, ..Options::default() });
    world.submit(2);
    world.run_ms(5000);
    let committed = world.core(0).status().committed.0;
    assert!((3..=6).contains(&committed), "one block a second, not {committed}");
}

#[test]
fn a_killed_primary_is_replaced_and_catches_up() {
    for n in [3, 4, 7] {
        let mut world = calm(n, 5);
        world.submit(1);
        assert!(world.run_until_ordered(1000));
        world.kill(0);
        for origin in 1..n {
            world.submit(origin);
        }
        assert!(world.run_until_ordered(3000), "n = {n}: {}", world.describe());
        world.restart(0);
        world.submit(0);
        assert!(world.run_until_ordered(3000), "n = {n}: {}", world.describe());
    }
}

#[test]
fn all_killed_at_once_come_back_with_everything() {
    for n in [1, 3, 4] {
        for seed in 0..20 {
            let mut world = calm(n, seed);
            for _ in 0..4 {
                for origin in 0..n {
                    world.submit(origin);
                }
                world.run_ms(seed);
            }
            (0..n).for_each(|id| world.kill(id));
            (0..n).for_each(|id| world.restart(id));
            (0..n).for_each(|id| world.submit(id));
            assert!(world.run_until_ordered(6000), "n = {n} seed {seed}: {}", world.describe());
        }
    }
}

#[test]
fn two_of_four_down_stops_and_one_returning_resumes() {
    let mut world = calm(4, 9);
    world.submit(2);
    assert!(world.run_until_ordered(1000));
    world.kill(0);
    world.kill(1);
    world.submit(2);
    world.run_ms(60_000);
    assert!(world.cores().all(|core| core.status().view <= View(2)), "{}", world.describe());
    world.restart(1);
    assert!(world.run_until_ordered(16_000), "{}", world.describe());
}

#[test]
fn lost_and_reordered_messages_delay_but_stop_nothing() {
    for seed in 0..40 {
        let n = [3, 4, 4, 7][(seed % 4) as usize];
        let mut world = World::begun(n, seed, Options { drop_percent: 10, ..Options::default() });
        for _ in 0..6 {
            for origin in 0..n {
                world.submit(origin);
            }
            world.run_ms(150);
        }
        world.options.drop_percent = 0;
        assert!(world.run_until_ordered(20_000), "seed {seed}: {}", world.describe());
    }
}

#[test]
fn crashes_and_loss_never_fork_and_never_lose_what_was_executed() {
    for seed in 100..160 {
        let n = [1, 3, 4, 4, 5, 7][(seed % 6) as usize];
        let mut world = World::begun(n, seed, Options { drop_percent: 5, ..Options::default() });
        for _ in 0..12 {
            let id = world.below(u64::from(n)) as u16;
            world.submit(id);
            let pause = world.below(400);
            world.run_ms(pause);
            let victim = world.below(u64::from(n)) as u16;
            if world.is_up(victim) {
                world.kill(victim);
            }
            let pause = world.below(1500);
            world.run_ms(pause);
            world.restart(victim);
        }
        world.options.drop_percent = 0;
        (0..n).for_each(|id| world.submit(id));
        assert!(world.run_until_ordered(30_000), "seed {seed}: {}", world.describe());
    }
}

#[test]
fn a_partitioned_replica_moves_nobody_and_follows_after_the_heal() {
    let mut world = calm(4, 44);
    world.submit(0);
    assert!(world.run_until_ordered(1000));
    world.cut(3);
    for _ in 0..10 {
        world.submit(1);
        world.run_ms(500);
    }
    world.heal();
    world.submit(3);
    assert!(world.run_until_ordered(3000), "{}", world.describe());
    assert!(world.cores().take(3).all(|core| core.status().view == View(0)));
}

#[test]
fn who_catches_up_commits_at_most_256_blocks_by_one_certificate() {
    let mut world = calm(4, 45);
    world.cut(3);
    let before = world.core(3).status().committed;
    while world.core(0).status().committed < before.plus(600) {
        (0..3).for_each(|origin| world.submit(origin));
        world.run_ms(10);
    }
    let everything = world.core(0).status().committed;
    world.heal();
    world.submit(3);
    // Besides what is asked for, the sources send all there is.
    for turn in 0..600 {
        let from = world.core(3).status().committed.next();
        if let Some(wide) = world.page_of(turn % 3, from, everything) {
            world.deliver(turn % 3, 3, wide);
        }
        world.run_ms(1);
    }
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    let mut certified = world.certified_in_log(3);
    certified.insert(0, Height(0));
    let gap = certified.windows(2).map(|pair| pair[1].0 - pair[0].0).max();
    assert!(gap.is_some_and(|gap| (128..=256).contains(&gap)), "{gap:?}");
}

#[test]
fn a_linearizable_read_sees_every_height_acknowledged_before() {
    for seed in 0..20 {
        let mut world = World::begun(4, seed, Options { drop_percent: 5, ..Options::default() });
        for round in 0..20_u64 {
            world.submit((round % 4) as u16);
            let pause = world.below(60);
            world.run_ms(pause);
            let reader = world.below(4) as u16;
            world.read(reader);
        }
        world.options.drop_percent = 0;
        assert!(world.run_until_read(20_000), "seed {seed}: {}", world.describe());
    }
}

#[test]
fn a_primary_that_proposes_two_blocks_at_one_height_forks_nobody() {
    for seed in 0..20 {
        let mut world = calm(4, seed);
        world.equivocate(ReplicaId(0));
        for origin in 1..4 {
            world.submit(origin);
        }
        assert!(world.run_until_ordered(8000), "seed {seed}: {}", world.describe());
    }
}

#[test]
fn a_replica_with_another_state_is_quarantined_and_the_others_go_on() {
    let mut world = calm(4, 13);
    world.diverge(2);
    for _ in 0..12 {
        world.submit(1);
        world.run_ms(100);
    }
    world.run_ms(3000);
    assert_eq!(world.core(2).status().mode, Mode::Quarantined, "{}", world.describe());
    world.submit(3);
    assert!(world.run_until_ordered(5000), "{}", world.describe());
}

/// One seed of everything at once: loss, cuts, crashes of several, a lying primary, reads, leases.
fn chaos(seed: u64) {
    let n = [4, 3, 7, 4, 5, 1, 4, 2][(seed % 8) as usize];
    let options = Options {
        drop_percent: seed % 11,
        leases: seed.is_multiple_of(3),
        checkpoint_every: seed % 5,
        ..Options::default()
    };
    let mut world = World::begun(n, seed, options);
    if n >= 4 && seed.is_multiple_of(2) {
        world.equivocate(ReplicaId((seed / 8 % u64::from(n)) as u16));
    }
    for _ in 0..25 {
        for _ in 0..world.below(6) {
            let id = world.below(u64::from(n)) as u16;
            world.submit(id);
        }
        let id = world.below(u64::from(n)) as u16;
        match world.below(6) {
            0 => world.kill_if_up(id),
            1 => world.cut(id),
            2 => world.heal(),
            3 => world.read(id),
            _ => world.restart(id),
        }
        let pause = world.below(900);
        world.run_ms(pause);
    }
    world.options.drop_percent = 0;
    world.heal();
    (0..n).for_each(|id| world.restart(id));
    world.run_ms(2000);
    (0..n).for_each(|id| world.submit(id));
    assert!(world.run_until_ordered(40_000), "seed {seed}: {}", world.describe());
    assert!(world.run_until_read(10_000), "seed {seed}: {}", world.describe());
    world.check_certificates();
}

#[test]
fn everything_at_once_forks_nobody_and_ends_in_progress() {
    (0..48).for_each(chaos);
}

#[test]
#[ignore = "minutes: for whoever changes the ordering"]
fn everything_at_once_for_many_seeds() {
    (1000..3000).for_each(chaos);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = || {
        let mut world = World::begun(4, 42, Options { drop_percent: 10, ..Options::default() });
        for origin in 0..4 {
            world.submit(origin);
            world.run_ms(300);
        }
        world.trace
    };
    assert_eq!(run(), run());
}
