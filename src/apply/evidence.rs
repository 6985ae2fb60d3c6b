//! A proof that a replica lied. That it proves what it says was decided by the voters that accepted its
//! block; here it is written down once (protocol.md 13.7).

use bytes::Bytes;

use crate::apply::{Done, OpError, Reply, Step};
use crate::chain::Evidence;
use crate::state::Proof;

impl Step<'_> {
    pub(super) fn evidence(&mut self, proof: &Bytes) -> Done<Reply> {
        let (evidence, accused) = Evidence::of_op(proof).ok_or(OpError::Malformed)?;
        let proof = Proof {
            accused,
            kind: evidence.kind(),
            reporter: self.origin,
            height: self.header.height,
            time_ms: self.header.time_ms,
        };
        let news = self.state.record_proof(evidence.digest(), proof);
        Ok(Reply::Evidence { revision: self.revision(), news })
    }
}
