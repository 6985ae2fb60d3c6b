//! What a replica may say whose disk was lost: nothing that counts, until a block with the REJOIN of its
//! present process is committed, and no vote up to that certificate's view (protocol.md 6.7).

use std::collections::BTreeMap;

use althing::chain::{Entry, Record};
use althing::ordering::Message;
use althing::types::{Epoch, Height, ReplicaId, View};

use crate::sim::plan::Micros;

/// REJOINs in blocks, and where fences were left.
#[derive(Default)]
pub struct Fences {
    /// Where a replica's nonce stands in a block that someone logged, and when the first did.
    nonces: BTreeMap<(ReplicaId, [u8; 32]), (Height, Micros)>,
    left: BTreeMap<ReplicaId, (Epoch, View)>,
}

impl Fences {
    /// A replica logs a record; nonce and start are its process's.
    ///
    /// # Errors
    /// It leaves the fence on a certificate that proves nothing about its lost votes.
    pub fn appended(
        &mut self,
        replica: ReplicaId,
        (nonce, since): ([u8; 32], Micros),
        record: &Record,
        now: Micros,
    ) -> Result<(), String> {
        match record {
            Record::Block(block) => {
                for entry in &block.entries {
                    if let Entry::Rejoin(rejoin) = entry {
                        let at = (block.header.height, now);
                        let place = self.nonces.entry((rejoin.replica, rejoin.nonce)).or_insert(at);
                        place.0 = at.0;
                    }
                }
                Ok(())
            }
            Record::Rejoined(certificate) => {
                self.left.insert(replica, (certificate.epoch, certificate.view));
                let height = certificate.height;
                let held = self.nonces.get(&(replica, nonce)).filter(|(at, _)| *at <= height);
                match held {
                    None => Err(format!(
                        "{replica} leaves its fence at {height}, below any REJOIN of this process"
                    )),
                    // Its block may be older than the votes that are lost.
                    Some((_, first)) if *first < since => Err(format!(
                        "{replica} leaves its fence at {height} by a REJOIN of an earlier process"
                    )),
                    Some(_) => Ok(()),
                }
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
