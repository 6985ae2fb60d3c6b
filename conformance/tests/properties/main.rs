//! Property twins of the fuzz targets of faults.md 4.5 that concern peers, certificates and `step`; those of
//! messages and the log stand beside what they test (`ordering/message.rs`, `storage/log/tests.rs`).

use althing::chain::{Certificate, Member, Membership, Parameters, Phase, Vote, VoteSignature};
use althing::crypto::Scheme;
use althing::types::{Digest, Epoch, Height, OrgId, ReplicaId, View};
use conformance::sim::checkers::verifier::Verifier;
use conformance::sim::liars::Lie;
use conformance::sim::plan::{Plan, SECOND};
use conformance::sim::run;
use conformance::sim::scheme::KeyRing;
use proptest::prelude::*;
use std::sync::Arc;

const CLUSTER: Digest = Digest([8; 32]);
const BLOCK: Digest = Digest([6; 32]);

/// What is done to one signature of a certificate.
#[derive(Clone, Debug)]
enum Change {
    None,
    Flip(usize),
    Replica(u16),
    From(u64),
    Hash(u8),
    Extend,
    Repeat,
    Drop,
    View,
    Phase,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => Just(Change::None),
        1 => (0_usize..64).prop_map(Change::Flip),
        1 => (0_u16..9).prop_map(Change::Replica),
        1 => (0_u64..6).prop_map(Change::From),
        1 => any::<u8>().prop_map(Change::Hash),
        2 => Just(Change::Extend),
        1 => Just(Change::Repeat),
        1 => Just(Change::Drop),
        1 => Just(Change::View),
        1 => Just(Change::Phase),
    ]
}

fn signatures(
    schemes: &[Arc<dyn Scheme>],
    round: (Phase, Epoch, View),
    changes: &[Change],
) -> Vec<VoteSignature> {
    let mut all = Vec::new();
    for ((id, scheme), change) in (0_u16..).zip(schemes).zip(changes) {
        let (mut round, mut from, mut hashes) = (round, Height(3), vec![BLOCK]);
        match change {
            Change::Drop => continue,
            Change::From(height) => from = Height(1 + *height),
            Change::Hash(byte) => hashes = vec![Digest([*byte; 32])],
            Change::Extend => (from, hashes) = (Height(2), vec![Digest([1; 32]), BLOCK]),
            Change::View => round.2 = View(9),
            Change::Phase => round.0 = Phase::Prepare,
            _ => {}
        }
        let mut signed =
            Vote::sign(round, ReplicaId(id), (from, hashes), &CLUSTER, scheme.as_ref()).signed;
        match change {
            Change::Flip(at) => signed.signature.0[*at % 32] ^= 1,
            Change::Replica(other) => signed.replica = ReplicaId(*other),
            Change::Repeat => all.push(signed.clone()),
            _ => {}
        }
        all.push(signed);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// `cert_verify`: production and the simulator's own reading of the format agree on every certificate.
    #[test]
    fn any_certificate_is_judged_as_a_second_reading_judges_it(
        n in 1_usize..8,
        changes in prop::collection::vec(change(), 8),
        sorted in prop::bool::weighted(0.8),
    ) {
        let secrets: Vec<[u8; 32]> = (0..n).map(|at| [u8::try_from(at).unwrap() + 1; 32]).collect();
        let (ring, public) = KeyRing::new(&secrets);
        let schemes: Vec<Arc<dyn Scheme>> = secrets.iter().map(|one| ring.scheme(*one)).collect();
        let member = |(key, id): (&_, u16)| Member {
            id: ReplicaId(id), organisation: OrgId(id), key: *key, voting: true,
        };
        let members = public.iter().zip(0..).map(member).collect();
        let epoch = Epoch(0);
        let parameters = Parameters::default();
        let membership = Membership { epoch, members, parameters, first_primary: 0 };
        let round = (Phase::Commit, epoch, View(1));
        let mut signatures = signatures(&schemes, round, &changes);
        if sorted {
            signatures.sort_by_key(|signed| signed.replica);
        }
        let ordered = signatures.is_sorted_by(|one, two| one.replica < two.replica);
        let certificate = Certificate {
            phase: Phase::Commit,
            epoch,
            view: View(1),
            height: Height(3),
            block_hash: BLOCK,
            signatures,
        };
        let verifier = Verifier::new(CLUSTER, public, Arc::clone(&schemes[0]));
        let production = certificate.check(&CLUSTER, &membership, schemes[0].as_ref());
        // Order is a matter of one encoding, which the second reading does not judge.
        let second = verifier.refuse(&certificate).is_none() && ordered;
        prop_assert_eq!(production.is_ok(), second, "{:?}", production);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// `core_step`, `sim_disrupter`: whatever a liar sends to replicas in whatever state, nobody panics, votes
    /// twice or accuses an honest one.
    #[test]
    fn any_message_in_any_state_breaks_nobody(seed in any::<u32>(), wild in any::<bool>()) {
        let mut plan = Plan::draw(u64::from(seed));
        plan.n = 4;
        plan.twins = 0;
        plan.stay_down = 0;
        plan.wrong_clock_ms = 0;
        plan.large_values = 0;
        plan.lies = vec![if wild { Lie::Wild } else { Lie::Garbler }];
        plan.faulty_for = SECOND;
        let failed = run(plan, false).err().map(|failure| failure.what);
        prop_assert_eq!(failed, None);
    }
}
