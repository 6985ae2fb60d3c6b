use std::sync::Arc;

use althing::chain::{Certificate, Member, Membership, Parameters, Phase, Vote, VoteSignature};
use althing::crypto::Scheme;
use althing::types::{Digest, Epoch, Height, OrgId, ReplicaId, View};

use crate::sim::checkers::verifier::Verifier;
use crate::sim::scheme::KeyRing;
use crate::targets::Choices;

const CLUSTER: Digest = Digest([8; 32]);
const BLOCK: Digest = Digest([6; 32]);
const ROUND: (Phase, Epoch, View) = (Phase::Commit, Epoch(0), View(1));

/// Production and the simulator's own reading of the format agree on every certificate: some of the voters'
/// signatures, each as it should be or changed in one way.
pub fn cert_verify(data: &[u8]) {
    let mut choices = Choices::new(data);
    let n = 1 + choices.byte() % 7;
    let secrets: Vec<[u8; 32]> = (0..n).map(|at| [at + 1; 32]).collect();
    let (ring, public) = KeyRing::new(&secrets);
    let schemes: Vec<Arc<dyn Scheme>> = secrets.iter().map(|one| ring.scheme(*one)).collect();
    let member = |(key, id): (&_, u16)| Member {
        id: ReplicaId(id),
        organisation: OrgId(id),
        key: *key,
        voting: true,
    };
    let membership = Membership {
        epoch: Epoch(0),
        members: public.iter().zip(0..).map(member).collect(),
        parameters: Parameters::default(),
        first_primary: 0,
    };
    let is_sorted = !choices.byte().is_multiple_of(5);
    let mut signatures = Vec::new();
    for (id, scheme) in (0_u16..).zip(&schemes) {
        sign(ReplicaId(id), scheme.as_ref(), &mut choices, &mut signatures);
    }
    if is_sorted {
        signatures.sort_by_key(|signed| signed.replica);
    }
    let ordered = signatures.is_sorted_by(|one, two| one.replica < two.replica);
    let (phase, epoch, view) = ROUND;
    let certificate =
        Certificate { phase, epoch, view, height: Height(3), block_hash: BLOCK, signatures };
    let verifier = Verifier::new(CLUSTER, &public, Arc::clone(&schemes[0]));
    let production = certificate.check(&CLUSTER, &membership, schemes[0].as_ref());
    // Order is a matter of one encoding, which the second reading does not judge.
    let second = verifier.refuse(&certificate).is_none() && ordered;
    assert_eq!(production.is_ok(), second, "{production:?}");
}

/// What one voter contributes: mostly what it should.
fn sign(
    id: ReplicaId,
    scheme: &dyn Scheme,
    choices: &mut Choices,
    signatures: &mut Vec<VoteSignature>,
) {
    let (mut round, mut from, mut hashes) = (ROUND, Height(3), vec![BLOCK]);
    let change = choices.byte() % 16;
    match change {
        0 => return,
        1 => from = Height(u64::from(1 + choices.byte() % 6)),
        2 => hashes = vec![Digest([choices.byte(); 32])],
        3 | 4 => (from, hashes) = (Height(2), vec![Digest([1; 32]), BLOCK]),
        5 => round.2 = View(9),
        6 => round.0 = Phase::Prepare,
        _ => {}
    }
    let mut signed = Vote::sign(round, id, (from, hashes), &CLUSTER, scheme).signed;
    match change {
        7 => signed.signature.0[usize::from(choices.byte() % 32)] ^= 1,
        8 => signed.replica = ReplicaId(u16::from(choices.byte() % 9)),
        9 => signatures.push(signed.clone()),
        _ => {}
    }
    signatures.push(signed);
}
