//! What a replica may say whose disk was lost: nothing that counts, until a block with the REJOIN of its
//! present process is committed, and no vote up to that certificate's view (protocol.md 6.7).

use std::collections::BTreeMap;

use althing::chain::{Entry, Record};
use althing::ordering::Message;
use althing::types::{Epoch, Height, ReplicaId, View};

/// REJOINs in blocks, and where fences were left.
#[derive(Default)]
pub struct Fences {
    /// Where a nonce stands in a block that someone logged.
    nonces: BTreeMap<[u8; 32], Height>,
    left: BTreeMap<ReplicaId, (Epoch, View)>,
}

impl Fences {
    /// A replica logs a record; `nonce` is its process's.
    ///
    /// # Errors
    /// It leaves the fence on a certificate that proves nothing about its lost votes.
    pub fn appended(
        &mut self,
        replica: ReplicaId,
        nonce: [u8; 32],
        record: &Record,
    ) -> Result<(), String> {
        match record {
            Record::Block(block) => {
                for entry in &block.entries {
                    if let Entry::Rejoin(rejoin) = entry {
                        self.nonces.insert(rejoin.nonce, block.header.height);
                    }
                }
                Ok(())
            }
            Record::Rejoined(certificate) => {
                self.left.insert(replica, (certificate.epoch, certificate.view));
                let height = certificate.height;
                let held = self.nonces.get(&nonce).is_some_and(|at| *at <= height);
                let nothing = format!(
                    "{replica} leaves its fence at {height}, below any REJOIN of this process"
                );
                if held { Ok(()) } else { Err(nothing) }
            }
            _ => Ok(()),
        }
    }

    /// A replica whose disk was lost for sure, and that has not come back, sends something.
    ///
    /// # Errors
    /// It is a word that others count.
    pub fn lost_sends(&self, replica: ReplicaId, message: &Message) -> Result<(), String> {
        let counts = matches!(
            message,
            Message::PrePrepare { .. }
                | Message::Votes(_)
                | Message::ViewChange(_)
                | Message::NewView(_)
                | Message::ReadAnswer(_)
                | Message::Checkpoint(_)
        );
        if counts { Err(format!("{replica} speaks although its votes are lost")) } else { Ok(()) }
    }

    /// A replica votes.
    ///
    /// # Errors
    /// In a view where a lost vote may lie.
    pub fn sent(&self, replica: ReplicaId, message: &Message) -> Result<(), String> {
        let Some(left) = self.left.get(&replica) else { return Ok(()) };
        let early = |epoch: Epoch, view: View| (epoch, view) <= *left;
        let (what, early) = match message {
            Message::Votes(votes) => {
                ("votes", votes.iter().any(|vote| early(vote.epoch, vote.view)))
            }
            Message::PrePrepare { prepare, .. } => ("proposes", early(prepare.epoch, prepare.view)),
            _ => return Ok(()),
        };
        if early {
            return Err(format!("{replica} {what} in the view of its REJOIN {left:?} or below"));
        }
        Ok(())
    }
}
