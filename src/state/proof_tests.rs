use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use crate::chain::{StateFinding, StateLeaf, StateProof, Value, ValueRef};
use crate::codec::{Decode, Encode};
use crate::state::testing::{MapValues, genesis};
use crate::state::{Cause, NewVersion, Record, State};
use crate::types::{Digest, LeaseId};
use crate::verify;

struct World {
    state: State,
    values: MapValues,
    leaves: BTreeMap<Vec<u8>, StateLeaf>,
}

fn world(keys: &[Vec<u8>]) -> World {
    let (mut state, mut values) = (State::genesis(&genesis()), MapValues::default());
    let mut leaves = BTreeMap::new();
    let (mut record, cause) = (Record::default(), Cause::expiry(LeaseId(0)));
    for (offset, key) in (0_u32..).zip(keys) {
        let value = Value { salt: [3; 16], bytes: Bytes::copy_from_slice(&offset.to_le_bytes()) };
        let commitment = value.commitment();
        values.0.insert((1, offset), value);
        let at = ValueRef { segment: 1, offset, length: 4, check: 0 };
        let key = Bytes::copy_from_slice(key);
        let new = NewVersion { lease: LeaseId(0), value: at, commitment };
        state.put(&key, new, &cause, &mut record);
        state.end_revision();
        let kv = state.kv.get(&key).expect("just put");
        let leaf = StateLeaf {
            modified: kv.modified,
            create: kv.create,
            version: kv.version,
            lease: kv.lease,
            commitment,
        };
        leaves.insert(key.to_vec(), leaf);
    }
    state.end_block(&record, false);
    World { state, values, leaves }
}

impl World {
    fn prove(&self, key: &[u8]) -> StateProof {
        self.state.prove(key, &self.values).expect("values are there")
    }

    fn check(&self, key: &[u8]) {
        let proof = self.prove(key);
        let shown = verify::state_proof(&proof, &self.state.exec_root());
        assert_eq!(shown, Ok(self.leaves.get(key).copied()), "{proof:?}");
        assert_eq!(StateProof::from_bytes(proof.to_bytes()), Ok(proof));
    }

    /// A proof that verifies says the truth, whoever made it.
    fn check_truth(&self, bytes: Vec<u8>) {
        let Ok(proof) = StateProof::from_bytes(Bytes::from(bytes)) else { return };
        if let Ok(shown) = verify::state_proof(&proof, &self.state.exec_root()) {
            assert_eq!(shown, self.leaves.get(&proof.key[..]).copied(), "{proof:?}");
        }
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0)], 1..7),
        (0_u32..300).prop_map(|n| format!("/registry/pods/{n:04}").into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_proof_shows_what_is_there_and_what_is_not(
        keys in prop::collection::vec(key(), 0..300),
        others in prop::collection::vec(key(), 1..20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 40),
    ) {
        let world = world(&keys);
        for key in keys.iter().chain(&others) {
            world.check(key);
        }
        world.check(b"");
        world.check(&[0xff; 40]);
        for key in others {
            let bytes = world.prove(&key).to_bytes().to_vec();
            for (at, bit) in &flips {
                let mut bytes = bytes.clone();
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                world.check_truth(bytes);
            }
        }
    }
}

#[test]
fn a_key_that_is_there_cannot_be_shown_absent_by_its_neighbours() {
    let keys: Vec<Vec<u8>> = (0..200).map(|n| format!("key{n:03}").into_bytes()).collect();
    let world = world(&keys);
    let root = world.state.exec_root();
    for at in 1..199 {
        let of = |at: usize| match world.prove(&keys[at]).finding {
            StateFinding::Present(leaf) => leaf,
            other => unreachable!("the key is there: {other:?}"),
        };
        let honest = world.prove(format!("key{at:03}x").as_bytes());
        let StateFinding::Between { in_page, shared, .. } = honest.finding.clone() else {
            unreachable!("it lies between two keys")
        };
        let (left, right) = (of(at - 1), of(at + 1));
        let finding = StateFinding::Between { left, right, in_page, shared };
        let forged = StateProof { key: Bytes::from(keys[at].clone()), finding, ..honest };
        assert!(verify::state_proof(&forged, &root).is_err());
        for finding in [StateFinding::Before(of(at)), StateFinding::Behind(of(at))] {
            let forged = StateProof { finding, ..forged.clone() };
            assert!(verify::state_proof(&forged, &root).is_err());
        }
    }
    let honest = world.prove(b"key100");
    assert!(verify::state_proof(&honest, &Digest::ZERO).is_err());
}
