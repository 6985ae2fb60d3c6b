//! Members and parameters change under load, and what belongs to another epoch moves nothing.

use super::world::{Options, World, governance_key, key, scheme};
use super::*;
use crate::chain::{
    Attestation, ConfigAction, ConfigChange, EpochProof, NewReplica, Parameters, Phase, Vote,
    possession_bytes,
};
use crate::crypto::Scheme;
use crate::types::{Digest, Epoch, Millis, OrgId, ReplicaId, View};

const CLUSTER: Digest = Digest([8; 32]);

/// A change of the newest network, signed by `organisations`, submitted through `through`.
pub fn change(world: &mut World, through: u16, action: ConfigAction, organisations: &[u16]) {
    let signed = signed_change(world, action, organisations);
    world.submit_change(through, signed);
}

fn signed_change(world: &World, action: ConfigAction, organisations: &[u16]) -> ConfigChange {
    let base = world.network().membership.config_hash();
    let not_after_ms = Millis(u64::MAX);
    let mut change = ConfigChange { base, not_after_ms, action, attestation: None, votes: vec![] };
    for id in organisations {
        change.vote(OrgId(*id), &governance_key(*id), &CLUSTER);
    }
    if let Some(replica) = change.promoted() {
        let (epoch, at) = world.state_of(replica.0);
        let scheme = scheme(replica.0);
        change.attestation = Some(Attestation::sign(replica, epoch, at, &CLUSTER, &scheme));
    }
    change
}

pub fn new_replica(id: u16) -> NewReplica {
    NewReplica {
        organisation: format!("org{id}"),
        governance_keys: vec![governance_key(id).public_key()],
        name: format!("org{id}"),
        key: key(id),
        possession: scheme(id).sign(&possession_bytes(&CLUSTER, &key(id))),
        client_urls: vec![format!("https://127.0.0.1:{}", 2000 + id)],
        peer_address: format!("127.0.0.1:{}", 3000 + id),
        observer: false,
    }
}

fn remove(replica: u16, accept_smaller_f: bool) -> ConfigAction {
    ConfigAction::Remove { replica: ReplicaId(replica), accept_smaller_f }
}

pub fn promote(replica: u16) -> ConfigAction {
    ConfigAction::Promote { replica: ReplicaId(replica) }
}

pub fn load(world: &mut World, ms: u64) {
    let origins: Vec<u16> = world.network().membership.members.iter().map(|m| m.id.0).collect();
    for _ in 0..ms / 10 {
        for id in &origins {
            world.submit(*id);
        }
        world.run_ms(10);
    }
}

/// Until every member that is up is in this epoch.
pub fn reach(world: &mut World, epoch: u64, ms: u64) {
    for _ in 0..ms / 10 {
        load(world, 10);
        let members = world.network().membership;
        let there = members.members.iter().filter(|member| world.is_up(member.id.0));
        let all = there.map(|member| world.core(member.id.0).status().epoch);
        if all.into_iter().all(|reached| reached == Epoch(epoch)) {
            return;
        }
    }
    panic!("epoch {epoch} is not reached: {}", world.describe());
}

/// Adds replica `id` of a new organisation and makes it vote; two epochs.
fn grow(world: &mut World, id: u16, organisations: &[u16]) {
    let epoch = world.network().membership.epoch.0;
    let through = world.network().membership.members[0].id.0;
    change(world, through, ConfigAction::Add(new_replica(id)), organisations);
    reach(world, epoch + 1, 3000);
    world.join(id);
    reach(world, epoch + 1, 8000);
    change(world, id, promote(id), organisations);
    reach(world, epoch + 2, 5000);
    assert!(world.network().membership.voter(ReplicaId(id)).is_some());
}

/// The longest time without an executed block while the load ran, ms.
fn longest_stall(world: &World, from: u64) -> u64 {
    let times: Vec<u64> = world.executed_ms.iter().copied().filter(|at| *at >= from).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

fn last_ms(world: &World) -> u64 {
    world.executed_ms.last().copied().unwrap_or_default()
}

/// The proofs lead from the first network to the last, whoever keeps them.
fn check_proofs(world: &World) {
    let network = world.network();
    let at = network.membership.epoch.0 as usize;
    for member in &network.membership.members {
        let proofs: &[EpochProof] = world.epochs_of(member.id.0);
        assert_eq!(proofs.len(), at, "replica {}", member.id);
        let mut known = world.first_network();
        for proof in proofs {
            known = proof.check(&known, &CLUSTER, &scheme(0)).expect("it holds");
        }
        assert_eq!(known, network);
    }
}

#[test]
fn four_become_five_and_four_again_under_load() {
    for seed in 0..5 {
        let mut world = World::begun(4, seed, Options { drop_percent: seed, ..Options::default() });
        load(&mut world, 100);
        let from = last_ms(&world);
        grow(&mut world, 4, &[0, 1, 2]);
        change(&mut world, 1, remove(2, false), &[0, 1, 3, 4]);
        reach(&mut world, 3, 5000);
        load(&mut world, 200);
        assert!(world.run_until_ordered(5000), "seed {seed}: {}", world.describe());
        assert!(longest_stall(&world, from) < 2000, "{}", longest_stall(&world, from));
        check_proofs(&world);
    }
}

#[test]
fn a_new_epoch_in_view_0_outranks_the_views_of_the_one_before() {
    let mut world = World::begun(4, 9, Options::default());
    load(&mut world, 100);
    world.kill(0);
    load(&mut world, 3000);
    world.restart(0);
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    let left = world.core(1).status().view;
    grow(&mut world, 4, &[0, 1, 2, 3]);
    load(&mut world, 200);
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    let view = world.core(1).status().view;
    assert!(left > View(0) && view < left, "from {left:?} to {view:?}");
    check_proofs(&world);
}

#[test]
fn four_become_seven_and_four_again_under_load() {
    let mut world = World::begun(4, 11, Options::default());
    load(&mut world, 100);
    let from = last_ms(&world);
    for id in 4..7 {
        let organisations: Vec<u16> = (0..id).collect();
        grow(&mut world, id, &organisations);
    }
    assert_eq!(world.network().membership.quorum().f(), 2);
    for id in [6, 5, 4] {
        let epoch = world.network().membership.epoch.0;
        let organisations: Vec<u16> = (0..id).collect();
        change(&mut world, 0, remove(id, true), &organisations);
        reach(&mut world, epoch + 1, 5000);
    }
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    assert_eq!(world.network().membership.quorum().n(), 4);
    assert!(longest_stall(&world, from) < 2000, "{}", longest_stall(&world, from));
    check_proofs(&world);
}

#[test]
fn a_removed_primary_is_followed_by_the_next_id() {
    let mut world = World::begun(4, 3, Options::default());
    grow(&mut world, 4, &[0, 1, 2, 3]);
    change(&mut world, 3, remove(0, false), &[1, 2, 3, 4]);
    reach(&mut world, 3, 5000);
    load(&mut world, 200);
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    let status = world.core(2).status();
    assert_eq!((status.view, status.primary), (View(0), Some(ReplicaId(1))), "nobody waited");
    assert_eq!(world.core(0).status().mode, Mode::Observer, "who left votes no more");
    let at = world.core(0).status().committed;
    load(&mut world, 200);
    assert_eq!(world.core(0).status().committed, at, "and is shown no later block");
}

#[test]
fn the_second_of_two_changes_that_wait_is_for_another_epoch_and_refused() {
    let mut world = World::begun(4, 5, Options::default());
    let add = signed_change(&world, ConfigAction::Add(new_replica(4)), &[0, 1, 2]);
    let parameters = Parameters { view_timeout_ms: 900, ..Parameters::default() };
    let other = signed_change(&world, ConfigAction::Parameters(parameters.clone()), &[0, 1, 2]);
    world.submit_change(1, add);
    world.submit_change(2, other);
    load(&mut world, 500);
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    let network = world.network();
    assert_eq!(network.membership.epoch, Epoch(1));
    let added = network.membership.member(ReplicaId(4)).is_some();
    assert!(added != (network.membership.parameters == parameters), "one of the two was made");
}

#[test]
fn a_change_without_its_signatures_changes_nothing_and_stops_nothing() {
    let mut world = World::begun(4, 6, Options::default());
    let mut stolen = new_replica(4);
    stolen.possession = scheme(3).sign(&possession_bytes(&CLUSTER, &key(4)));
    let rotate = |id: u16| ConfigAction::RotateKey {
        replica: ReplicaId(id),
        key: key(50),
        possession: scheme(50).sign(&possession_bytes(&CLUSTER, &key(50))),
    };
    let mut altered = signed_change(&world, remove(2, true), &[0, 1, 2]);
    altered.action = remove(3, true);
    let refused = [
        signed_change(&world, ConfigAction::Add(new_replica(4)), &[0, 1]),
        signed_change(&world, ConfigAction::Add(stolen), &[0, 1, 2]),
        signed_change(&world, rotate(3), &[0, 1, 2]),
        signed_change(&world, remove(3, false), &[0, 1, 2]),
        altered,
    ];
    for change in refused {
        world.submit_change(1, change);
        load(&mut world, 50);
    }
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    assert_eq!(world.network().membership.epoch, Epoch(0), "{}", world.describe());
    assert!(world.cores().all(|core| core.status().view == View(0)), "{}", world.describe());
}

#[test]
fn a_rotated_key_votes_once_its_replica_signs_with_it_and_the_old_one_never_again() {
    let mut world = World::begun(4, 8, Options::default());
    load(&mut world, 50);
    let action = ConfigAction::RotateKey {
        replica: ReplicaId(2),
        key: key(50),
        possession: scheme(50).sign(&possession_bytes(&CLUSTER, &key(50))),
    };
    change(&mut world, 0, action, &[2]);
    reach(&mut world, 1, 3000);
    world.rekey(2, key(50));
    world.kill(3);
    load(&mut world, 300);
    assert!(world.run_until_ordered(8000), "its votes are needed: {}", world.describe());
}

pub fn rotate(replica: u16, to: u16) -> ConfigAction {
    ConfigAction::RotateKey {
        replica: ReplicaId(replica),
        key: key(to),
        possession: scheme(to).sign(&possession_bytes(&CLUSTER, &key(to))),
    }
}

#[test]
fn a_new_key_in_the_epoch_before_it_follows_and_votes_from_its_own_epoch_on() {
    let mut world = World::begun(4, 8, Options::default());
    load(&mut world, 50);
    world.kill(2);
    change(&mut world, 0, rotate(2, 50), &[2]);
    reach(&mut world, 1, 3000);
    // Its log ends in the epoch before.
    world.rekey(2, key(50));
    reach(&mut world, 1, 5000);
    world.kill(3);
    load(&mut world, 300);
    assert!(world.run_until_ordered(8000), "its votes are needed: {}", world.describe());
}

#[test]
fn who_signs_with_a_later_key_leads_no_epoch_before_it() {
    let mut world = World::begun(4, 3, Options::default());
    load(&mut world, 50);
    world.rekey(1, key(50));
    // Whoever comes after the one that leaves leads the next epoch.
    change(&mut world, 0, remove(0, true), &[1, 2, 3]);
    reach(&mut world, 1, 5000);
    load(&mut world, 2000);
    let leads = world.core(2).status().primary;
    assert_eq!(leads, Some(ReplicaId(2)), "{}", world.describe());
    assert_eq!(world.core(1).status().counters.proposals, 0, "{}", world.describe());
    change(&mut world, 2, rotate(1, 50), &[1]);
    reach(&mut world, 2, 5000);
    load(&mut world, 100);
    assert!(world.run_until_ordered(8000), "{}", world.describe());
}

#[test]
fn a_log_from_before_a_rotation_knows_the_lost_votes_of_the_new_key() {
    let mut world = World::begun(4, 12, Options::default());
    load(&mut world, 50);
    world.copy(2);
    change(&mut world, 0, rotate(2, 50), &[2]);
    reach(&mut world, 1, 3000);
    world.rekey(2, key(50));
    load(&mut world, 300);
    assert!(world.run_until_ordered(8000), "{}", world.describe());
    world.kill(2);
    world.roll_back(2);
    world.restart(2);
    load(&mut world, 300);
    assert!(world.fences(2) > 0, "it voted with that key: {}", world.describe());
    assert!(world.run_until_ordered(20_000), "{}", world.describe());
}

#[test]
fn votes_of_another_epoch_and_of_a_removed_member_count_for_nothing() {
    let mut world = World::begun(4, 9, Options::default());
    grow(&mut world, 4, &[0, 1, 2, 3]);
    change(&mut world, 0, remove(1, false), &[0, 2, 3, 4]);
    reach(&mut world, 3, 5000);
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    let next = world.core(0).status().committed.next();
    let votes = |epoch: u64, voters: &[u16]| -> Vec<(u16, Message)> {
        let vote = |voter: u16| {
            let round = (Phase::Commit, Epoch(epoch), View(0));
            let range = (next, vec![Digest([9; 32])]);
            Vote::sign(round, ReplicaId(voter), range, &CLUSTER, &scheme(voter))
        };
        voters.iter().map(|id| (*id, Message::Votes(vec![vote(*id)]))).collect()
    };
    let certified = |world: &World| world.core(0).blocks.certificate.clone();
    let before = certified(&world);
    // q = 3 of 0, 2, 3, 4; 1 was removed.
    for (from, message) in votes(2, &[2, 3, 4]).into_iter().chain(votes(3, &[1, 2])) {
        world.deliver(from, 0, message);
        assert_eq!(certified(&world), before);
    }
    for (from, message) in votes(3, &[3, 4]) {
        world.deliver(from, 0, message);
    }
    assert_ne!(certified(&world), before, "q votes of this epoch's members do");
}

#[test]
fn old_messages_replayed_in_a_later_epoch_move_nothing() {
    for seed in 0..4 {
        let mut world = World::begun(4, seed, Options::default());
        world.keep_sent = true;
        load(&mut world, 200);
        grow(&mut world, 4, &[0, 1, 2, 3]);
        world.replay_sent();
        load(&mut world, 300);
        assert!(world.run_until_ordered(8000), "seed {seed}: {}", world.describe());
        check_proofs(&world);
    }
}

#[test]
fn crashes_loss_and_cuts_round_an_epoch_barrier_fork_nobody() {
    for seed in 0..16 {
        let mut world = World::begun(4, seed, Options { drop_percent: 3, ..Options::default() });
        let organisations = [0, 1, 2, 3];
        load(&mut world, 50);
        change(&mut world, 0, ConfigAction::Add(new_replica(4)), &organisations);
        for _ in 0..8 {
            let id = world.below(4) as u16;
            match world.below(4) {
                0 => world.kill_if_up(id),
                1 => world.cut(id),
                2 => world.heal(),
                _ => world.restart(id),
            }
            let pause = world.below(60);
            world.run_ms(pause);
        }
        world.heal();
        (0..4).for_each(|id| world.restart(id));
        world.options.drop_percent = 0;
        world.run_ms(3000);
        if world.network().membership.epoch == Epoch(0) {
            change(&mut world, 1, ConfigAction::Add(new_replica(4)), &organisations);
        }
        reach(&mut world, 1, 15_000);
        world.join(4);
        reach(&mut world, 1, 8000);
        change(&mut world, 4, promote(4), &organisations);
        let victim = world.below(4) as u16;
        let pause = world.below(40);
        world.run_ms(pause);
        world.kill_if_up(victim);
        reach(&mut world, 2, 15_000);
        world.restart(victim);
        reach(&mut world, 2, 8000);
        assert!(world.run_until_ordered(10_000), "seed {seed}: {}", world.describe());
        check_proofs(&world);
    }
}

#[test]
fn a_learner_whose_blocks_are_erased_everywhere_fetches_a_state_of_a_later_epoch() {
    for seed in 0..4 {
        let options = Options { checkpoint_every: 3, ..Options::default() };
        let mut world = World::new(4, seed, options);
        load(&mut world, 100);
        for timeout in [900, 800] {
            let epoch = world.network().membership.epoch.0;
            let parameters = world.network().membership.parameters;
            let parameters = Parameters { view_timeout_ms: timeout, ..parameters };
            change(&mut world, 0, ConfigAction::Parameters(parameters), &[0, 1, 2]);
            reach(&mut world, epoch + 1, 3000);
        }
        change(&mut world, 0, ConfigAction::Add(new_replica(4)), &[0, 1, 2]);
        reach(&mut world, 3, 3000);
        for _ in 0..20 {
            world.submit(1);
            world.run_ms(100);
        }
        world.run_ms(2000);
        let horizon = world.stable(0).minus(3);
        (0..4).for_each(|replica| world.erase(replica, horizon));
        world.join(4);
        for _ in 0..100 {
            world.submit(1);
            world.run_ms(100);
        }
        assert!(world.installed > 0, "it came another way: {}", world.describe());
        change(&mut world, 4, promote(4), &[0, 1, 2]);
        reach(&mut world, 4, 8000);
        world.kill(0);
        world.submit(4);
        assert!(world.run_until_ordered(8000), "its vote is needed: {}", world.describe());
    }
}
