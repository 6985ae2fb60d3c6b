//! Members of a network of one owner change if an administrator asks for it (protocol.md 22.8).

use std::collections::BTreeSet;

use super::epochs::{load, promote, reach};
use super::world::{Options, World};
use super::*;
use crate::chain::{Administrators, ConfigAction, ConfigChange};
use crate::types::{Epoch, Millis, ReplicaId};

fn owned(seed: u64, lax: Option<u16>) -> World {
    let owned = Some(Administrators::only(BTreeSet::from(["root".into()])));
    let mut world = World::begun(4, seed, Options { owned, lax, ..Options::default() });
    load(&mut world, 100);
    world
}

fn change(world: &World, action: ConfigAction) -> ConfigChange {
    let base = world.network().membership.config_hash();
    ConfigChange { base, not_after_ms: Millis(u64::MAX), action, attestation: None, votes: vec![] }
}

fn remove(replica: u16) -> ConfigAction {
    ConfigAction::Remove { replica: ReplicaId(replica), accept_smaller_f: true }
}

#[test]
fn one_owners_members_change_for_an_administrator_and_for_nobody_else() {
    for seed in 0..8 {
        let mut world = owned(seed, None);
        let reserve = ConfigAction::Reserve { peer_address: "http://a:1".into(), voting: true };
        for (user, action) in
            [("", remove(3)), ("bob", remove(2)), ("bob", reserve), ("", promote(1))]
        {
            let change = change(&world, action);
            let through = world.below(4) as u16;
            world.submit_change_as(user, through, change);
            // Others' writes are under way when it comes.
            load(&mut world, 40);
        }
        assert!(world.run_until_ordered(5000), "seed {seed}: {}", world.describe());
        assert_eq!(world.network().membership.epoch, Epoch(0), "nobody may: {}", world.describe());
        let change = change(&world, remove(3));
        world.submit_change_as("root", 1, change);
        reach(&mut world, 1, 5000);
        assert!(world.network().membership.member(ReplicaId(3)).is_none());
        assert!(world.cores().all(|core| core.status().view == View(0)), "{}", world.describe());
    }
}

#[test]
fn a_primary_that_lets_everybody_change_members_is_refused_by_all_others() {
    for seed in 0..8 {
        let mut world = owned(seed, Some(0));
        let change = change(&world, remove(3));
        world.submit_change_as("bob", 2, change);
        load(&mut world, 3000);
        assert_eq!(world.network().membership.epoch, Epoch(0), "{}", world.describe());
        assert!(world.core(1).status().view > View(0), "it leads no more: {}", world.describe());
        for origin in 1..4 {
            world.submit(origin);
        }
        assert!(world.run_until_ordered(10_000), "seed {seed}: {}", world.describe());
    }
}

#[test]
fn a_replica_that_starts_again_knows_the_administrators_of_its_state() {
    let mut world = owned(3, None);
    for id in 0..4 {
        world.kill(id);
        world.restart(id);
        load(&mut world, 50);
    }
    let change = change(&world, remove(3));
    world.submit_change_as("bob", 1, change);
    assert!(world.run_until_ordered(10_000), "{}", world.describe());
    assert_eq!(world.network().membership.epoch, Epoch(0), "{}", world.describe());
}
