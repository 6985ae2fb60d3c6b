//! Has the proofs that this replica keeps written down by all (protocol.md 13.7).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::apply::Reply;
use crate::chain::{EvidenceFile, Op};
use crate::codec::{Decode, Encode};
use crate::node::Handle;
use crate::state::report_after_ms;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After an attempt that came to nothing.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

impl Handle {
    /// Orders each proof kept here that the state lacks, once this replica's turn has come. Runs for ever.
    pub async fn report_proofs(&self) {
        let mut due: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            let now = Instant::now();
            for (name, kept) in self.evidence() {
                let wait = || {
                    let members = self.network().membership;
                    Duration::from_millis(report_after_ms(&kept.digest, self.own(), &members))
                };
                let at = due.entry(name.clone()).or_insert_with(|| now + wait());
                let recorded =
                    |shared: &super::Shared| shared.state.proofs.get(&kept.digest).is_some();
                if now < *at || self.read(recorded) {
                    continue;
                }
                *at = now + AGAIN_AFTER;
                self.report(&name).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn report(&self, name: &str) {
        let Ok(bytes) = self.evidence_file(name) else { return };
        let Ok(EvidenceFile { evidence, .. }) = EvidenceFile::from_bytes(bytes) else { return };
        if !self.read(|shared| shared.state.proofs.lacks(&evidence)) {
            return;
        }
        let op = Op::Evidence { proof: evidence.to_bytes() };
        match self.propose(self.own_author("evidence"), op, Vec::new()).await {
            Ok(Reply::Evidence { news: true, .. }) => {
                tracing::info!(event = "proof_ordered", proof = name, "a proof is on record");
            }
            Ok(_) => {}
            Err(why) => tracing::warn!(event = "proof_ordered", proof = name, %why, "tried again"),
        }
    }
}
