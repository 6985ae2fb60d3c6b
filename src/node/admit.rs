use std::collections::VecDeque;
use std::sync::Arc;

use crate::chain::{
    BUNDLE_OPS_MAX, Bundle, BundleParts, Op, Parameters, REJOIN_SHIFT, SESSION_WINDOW, Skeleton,
    Value, check,
};
use crate::crypto::Scheme;
use crate::node::NodeError;
use crate::node::event::Request;
use crate::node::pending::Pending;
use crate::planted::{self, Bug};
use crate::types::{ClusterId, Millis, ReplicaId};

/// Bytes of values after which a bundle is closed (consensus.md 9).
const BUNDLE_VALUE_BYTES: usize = 256 << 10;

/// Requests that may wait for admission: etcd's gap between commit and apply.
const QUEUE_MAX: usize = 5_000;

/// Time a client's request may take until it must have been executed (etcd: 5 s + 2 elections).
pub(super) const REQUEST_TIMEOUT_MS: u64 = 7_000;

/// Turns requests into signed bundles.
///
/// A bundle holds everything that arrived while the one before was made: there is no timer, and a
/// lone client waits for nobody.
pub(super) struct Admission {
    own: ReplicaId,
    cluster_id: ClusterId,
    scheme: Arc<dyn Scheme>,
    /// Durable, larger than any before on this disk.
    counter: u64,
    session: u64,
    next_seq: u64,
    queue: VecDeque<Request>,
}

impl Admission {
    pub(super) fn new(
        own: ReplicaId,
        cluster_id: ClusterId,
        scheme: Arc<dyn Scheme>,
        counter: u64,
    ) -> Self {
        let session = counter;
        Self { own, cluster_id, scheme, counter, session, next_seq: 0, queue: VecDeque::new() }
    }

    /// Opens the session that goes with so many REJOINs of this replica; false if it is open. Requests
    /// of the one before are never answered: it is closed (consensus.md 9).
    pub(super) fn open_session(&mut self, rejoins: u64) -> bool {
        let session = (rejoins << REJOIN_SHIFT) | self.counter;
        let newer = session != self.session;
        if newer {
            (self.session, self.next_seq) = (session, 0);
        }
        newer
    }

    /// Refuses what waits.
    pub(super) fn refuse_all(&mut self, error: NodeError) {
        for request in self.queue.drain(..) {
            let _gone = request.reply.send(Err(error));
        }
    }

    pub(super) fn session(&self) -> u64 {
        self.session
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn queue(&mut self, request: Request) {
        if self.queue.len() >= QUEUE_MAX {
            drop(request.reply.send(Err(NodeError::TooManyRequests)));
            return;
        }
        self.queue.push_back(request);
    }

    /// The next bundle, if something waits and the session's window has room for it. What this epoch's
    /// parameters do not allow is answered and gets no sequence number.
    pub(super) fn next_bundle(
        &mut self,
        pending: &mut Pending,
        not_after: Millis,
        parameters: &Parameters,
    ) -> Option<Bundle> {
        let oldest = pending.oldest().unwrap_or(self.next_seq);
        let room = (oldest + SESSION_WINDOW).saturating_sub(self.next_seq);
        let room = usize::try_from(room).unwrap_or(0).min(BUNDLE_OPS_MAX);
        let first_seq = self.next_seq;
        let mut skeletons = Vec::new();
        let mut values: Vec<Value> = Vec::new();
        let mut bytes = 0;
        while skeletons.len() < room {
            let Some(next) = self.queue.front() else { break };
            let size: usize = next.values.iter().map(bytes::Bytes::len).sum();
            let alone = matches!(next.op, Op::Config(_) | Op::Evidence { .. });
            if !skeletons.is_empty() && (alone || bytes + size > BUNDLE_VALUE_BYTES) {
                break;
            }
            let request = self.queue.pop_front().expect("the front was there");
            if request.reply.is_closed() {
                continue;
            }
            if let Err(why) = check::op(&request.op, parameters) {
                let _gone = request.reply.send(Err(NodeError::Refused(why)));
                continue;
            }
            bytes += size;
            pending.wait_for(self.next_seq, request.reply);
            self.next_seq += 1;
            let mut op = request.op;
            op.for_each_slot(&mut |slot| {
                let given = request.values.get(slot.index as usize);
                let value = Value {
                    salt: if planted::is(Bug::SaltReused) { [7; 16] } else { fresh_salt() },
                    bytes: given.expect("the api numbers its own values").clone(),
                };
                slot.index = u32::try_from(values.len()).expect("a bundle has few values");
                slot.commitment = value.commitment();
                values.push(value);
            });
            skeletons.push(Skeleton { author: request.author, op });
            if alone {
                break;
            }
        }
        if skeletons.is_empty() {
            return None;
        }
        let parts = BundleParts {
            origin: self.own,
            session: self.session,
            first_seq,
            not_after_ms: not_after,
            skeletons,
            values,
        };
        Some(Bundle::sign(parts, &self.cluster_id, self.scheme.as_ref()))
    }
}

/// 16 random bytes that hide a value behind its commitment.
pub(super) fn fresh_salt() -> [u8; 16] {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).expect("the system's random source answers once it is seeded");
    salt
}

/// 32 random bytes that no process before has used.
pub(super) fn fresh_nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).expect("the system's random source answers once it is seeded");
    nonce
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::chain::check::BundleError;
    use crate::chain::{Author, DeleteRange, Put, Range, Txn, ValueSlot};
    use crate::crypto::Ed25519;
    use crate::types::{Digest, LeaseId};

    fn put() -> Op {
        Op::Put(Put {
            key: Bytes::from_static(b"key"),
            value: Some(ValueSlot { index: 0, commitment: Digest::ZERO }),
            lease: LeaseId(0),
            prev_kv: false,
            ignore_lease: false,
        })
    }

    /// Else who knows or guesses one value finds it again in a chain that was pruned.
    #[test]
    fn equal_values_are_never_hidden_by_equal_commitments() {
        let scheme = Arc::new(Ed25519::from_seed(&[1; 32]));
        let mut admission = Admission::new(ReplicaId(1), Digest([7; 32]), scheme, 1);
        let mut pending = Pending::default();
        let (mut commitments, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            for _ in 0..3 {
                let (reply, waiter) = tokio::sync::oneshot::channel();
                let values = vec![Bytes::from_static(b"secret")];
                admission.queue(Request { author: Author::default(), op: put(), values, reply });
                waiting.push(waiter);
            }
            let bundle = admission.next_bundle(&mut pending, Millis(1), &Parameters::default());
            let bundle = bundle.expect("three wait");
            assert!(bundle.values.iter().all(|value| value.bytes == "secret"));
            commitments.extend(bundle.values.iter().map(Value::commitment));
        }
        assert_eq!((commitments.len(), waiting.len()), (6, 6));
        commitments.sort_unstable();
        commitments.dedup();
        assert_eq!(commitments.len(), 6, "each value has a salt of its own");
    }

    /// Its epoch may allow less than the one in which the front looked at it.
    #[test]
    fn what_no_bundle_may_hold_is_answered_and_gets_no_number() {
        let scheme = Arc::new(Ed25519::from_seed(&[1; 32]));
        let mut admission = Admission::new(ReplicaId(1), Digest([7; 32]), scheme, 1);
        let mut pending = Pending::default();
        let parameters = Parameters { txn_ops_max: 1, ..Parameters::default() };
        let get = Op::Range(Range { key: Bytes::from_static(b"key"), ..Range::default() });
        let large =
            Txn { compares: vec![], success: vec![get.clone(), get.clone()], failure: vec![] };
        let no_key = Op::DeleteRange(DeleteRange {
            key: Bytes::new(),
            range_end: Bytes::new(),
            prev_kv: false,
        });
        let cases = [
            (get, Some(BundleError::Read)),
            (Op::Txn(large), Some(BundleError::Txn)),
            (no_key, Some(BundleError::Key)),
            (put(), None),
        ];
        let mut answers = Vec::new();
        for (op, _) in cases.clone() {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let values = vec![Bytes::from_static(b"value")];
            admission.queue(Request { author: Author::default(), op, values, reply });
            answers.push(answer);
        }
        let bundle =
            admission.next_bundle(&mut pending, Millis(1), &parameters).expect("one is left");
        assert_eq!((bundle.first_seq, bundle.end_seq()), (0, 1));
        for ((_, why), answer) in cases.into_iter().zip(&mut answers) {
            match why {
                Some(why) => {
                    let refused = answer.try_recv().expect("answered").err();
                    assert_eq!(refused, Some(NodeError::Refused(why)));
                }
                None => assert!(answer.try_recv().is_err(), "it waits to be executed"),
            }
        }
    }
}
