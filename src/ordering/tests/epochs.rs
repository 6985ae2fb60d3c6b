//! Members and parameters change under load, and what belongs to another epoch moves nothing.

use super::world::{Options, World, governance_key, key, scheme};
use super::*;
use crate::chain::{
    Attestation, ConfigAction, ConfigChange, EpochProof, NewReplica, Parameters, Phase, Vote,
    possession_bytes,
};
use crate::crypto::Scheme;
use crate::types::{Digest, Epoch, Height, Millis, OrgId, ReplicaId, View};

const CLUSTER: Digest = Digest([8; 32]);

/// A change of the newest network, signed by `organisations`, submitted through `through`.
fn change(world: &mut World, through: u16, action: ConfigAction, organisations: &[u16]) {
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

fn new_replica(id: u16) -> NewReplica {
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

fn promote(replica: u16) -> ConfigAction {
    ConfigAction::Promote { replica: ReplicaId(replica) }
}

fn load(world: &mut World, ms: u64) {
    let origins: Vec<u16> = world.network().membership.members.iter().map(|m| m.id.0).collect();
    for _ in 0..ms / 10 {
        for id in &origins {
            world.submit(*id);
        }
        world.run_ms(10);
    }
}

/// Until every member that is up is in this epoch.
fn reach(world: &mut World, epoch: u64, ms: u64) {
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
        let mut world = World::new(4, seed, Options { drop_percent: seed, ..Options::default() });
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
