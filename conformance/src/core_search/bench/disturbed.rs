//! The same bench with replica 3 a liar whose every word, and the order in which words arrive, are chosen
//! from outside: what a fuzzer drives.

use std::sync::Arc;

use althing::chain::{Author, Bundle, BundleParts, Certificate};
use althing::chain::{
    CheckpointId, CheckpointVote, NewView, Op, Phase, Rejoin, Skeleton, ViewChange, Vote,
};
use althing::codec::{Decode, Encode};
use althing::ordering::{Input, Message, Mode, ReadAnswer, ReadNonce, Status};
use althing::types::{Digest, Epoch, Height, LeaseId, Millis, ReplicaId, View};
use bytes::Bytes;

use crate::core_search::bench::{Bench, CLUSTER, UNIX_MS};
use crate::targets::Choices;

const LIAR: u16 = 3;
/// Choices taken before the network heals.
const STEPS_MAX: usize = 400;
/// Messages kept to be repeated, quoted and bent.
const HEARD_MAX: usize = 64;

impl Bench {
    /// Plays until the choices end, then heals: the honest three must have agreed and order everything.
    ///
    /// # Errors
    /// What went wrong.
    pub fn disturbed(choices: &mut Choices) -> Result<(), String> {
        let mut bench = Self::new(None)?;
        bench.third_lies = true;
        bench.replicas[usize::from(LIAR)].core = None;
        bench.narrow = choices.byte().is_multiple_of(2);
        let mut heard: Vec<Message> = Vec::new();
        for _ in 0..STEPS_MAX {
            if choices.is_empty() {
                break;
            }
            match choices.byte() % 8 {
                0..=2 => bench.deliver_one(&mut heard)?,
                3 => {
                    // Lost.
                    bench.wire.pop_front();
                }
                4 => {
                    if let Some(first) = bench.wire.pop_front() {
                        bench.wire.push_back(first);
                    }
                }
                5 => {
                    let ms = u64::from(choices.byte()) * 5;
                    (0..LIAR).try_for_each(|id| bench.tick(id, ms))?;
                }
                6 if choices.byte().is_multiple_of(8) => bench.give_up()?,
                _ => {
                    let message = bench.lie(choices, &heard);
                    let to = u16::from(choices.byte()) % LIAR;
                    if let Some(message) = message {
                        bench.step(to, Input::Recv { peer: ReplicaId(LIAR), message })?;
                    }
                }
            }
        }
        bench.heal()
    }

    fn deliver_one(&mut self, heard: &mut Vec<Message>) -> Result<(), String> {
        let Some((from, to, message)) = self.wire.pop_front() else { return Ok(()) };
        if to == LIAR {
            if heard.len() < HEARD_MAX {
                heard.push(message);
            }
            return Ok(());
        }
        self.step(to, Input::Recv { peer: ReplicaId(from), message })
    }

    /// Something that its key allows it to say, or that it heard, or what is left of that when a byte is
    /// another one.
    fn lie(&self, choices: &mut Choices, heard: &[Message]) -> Option<Message> {
        let scheme = self.schemes[usize::from(LIAR)].as_ref();
        let view = View(u64::from(choices.byte() % 6));
        let height = Height(u64::from(choices.byte() % 12));
        let hash = self.some_hash(choices, heard);
        let own = ReplicaId(LIAR);
        let some_certificate = |choices: &mut Choices| {
            let known = self.replicas.iter().filter_map(|replica| replica.committed.clone());
            let known: Vec<Certificate> = known.collect();
            choices.pick(&known).cloned()
        };
        let view_change = |choices: &mut Choices| {
            let certificates = (some_certificate(choices), some_certificate(choices), None);
            Arc::new(ViewChange::sign((Epoch(0), view), own, certificates, &CLUSTER, scheme))
        };
        Some(match choices.byte() % 14 {
            0 => choices.pick(heard)?.clone(),
            1 => {
                let mut bytes = choices.pick(heard)?.to_bytes().to_vec();
                let at = usize::from(choices.short()) % bytes.len();
                bytes[at] ^= choices.byte();
                Message::from_bytes(Bytes::from(bytes)).ok()?
            }
            2..=4 => {
                let phase =
                    if choices.byte().is_multiple_of(2) { Phase::Prepare } else { Phase::Commit };
                let count = usize::from(choices.byte() % 3) + 1;
                let hashes = (0..count).map(|_| self.some_hash(choices, heard)).collect();
                let mut vote =
                    Vote::sign((phase, Epoch(0), view), own, (height, hashes), &CLUSTER, scheme);
                if choices.byte().is_multiple_of(8) {
                    vote.signed.signature.0[3] ^= 1;
                }
                Message::Votes(vec![vote])
            }
            5 => Message::ViewChange(view_change(choices)),
            6 => {
                let asked = heard.iter().filter_map(|message| match message {
                    Message::ViewChange(asked) if asked.view == view => Some(Arc::clone(asked)),
                    _ => None,
                });
                let mut all: Vec<Arc<ViewChange>> = asked.collect();
                all.push(view_change(choices));
                all.sort_by_key(|asked| asked.replica);
                all.dedup_by_key(|asked| asked.replica);
                let new_view = NewView::sign((Epoch(0), view), all, &CLUSTER, scheme);
                Message::NewView(Arc::new(new_view))
            }
            7 => Message::Status(Status {
                epoch: Epoch(u64::from(choices.byte() % 3)),
                view,
                mode: if choices.byte().is_multiple_of(2) { Mode::Normal } else { Mode::Fenced },
                unix_ms: Millis(UNIX_MS + u64::from(choices.short())),
                committed: height,
                executed: height,
                stable: Height(u64::from(choices.byte())),
            }),
            8 => self.other_block(choices, heard, (view, height))?,
            9 => {
                let parts = BundleParts {
                    origin: own,
                    session: u64::from(choices.byte()),
                    first_seq: u64::from(choices.byte()),
                    not_after_ms: Millis(u64::MAX),
                    skeletons: vec![Skeleton {
                        author: Author::default(),
                        op: Op::LeaseRevoke { id: LeaseId(i64::from(choices.byte()) + 1) },
                    }],
                    values: Vec::new(),
                };
                Message::Bundle(Bundle::sign(parts, &CLUSTER, scheme))
            }
            10 => Message::Checkpoint(CheckpointVote::sign(
                Epoch(0),
                own,
                CheckpointId { height, block_hash: hash, exec_root: hash, manifest_root: hash },
                &CLUSTER,
                scheme,
            )),
            11 => {
                let nonce = [choices.byte(); 32];
                Message::Rejoin(Rejoin::sign(Epoch(0), own, nonce, &CLUSTER, scheme))
            }
            12 => {
                let nonce = ReadNonce { start: [1; 32], counter: u64::from(choices.byte()) };
                let answer = ReadAnswer { nonce, epoch: Epoch(0), mark: height, committed: height };
                Message::ReadAnswer(answer)
            }
            _ => {
                Message::Certificate(Certificate { block_hash: hash, ..some_certificate(choices)? })
            }
        })
    }

    fn some_hash(&self, choices: &mut Choices, heard: &[Message]) -> Digest {
        let proposed = heard.iter().filter_map(|message| match message {
            Message::PrePrepare { block, .. } => Some(block.hash()),
            _ => None,
        });
        let known: Vec<Digest> = proposed.chain(self.chain.iter().copied()).collect();
        let chosen = choices.pick(&known).copied();
        chosen.filter(|_| !choices.byte().is_multiple_of(4)).unwrap_or(Digest([choices.byte(); 32]))
    }

    /// A proposal it heard, as its own.
    fn other_block(
        &self,
        choices: &mut Choices,
        heard: &[Message],
        (view, height): (View, Height),
    ) -> Option<Message> {
        let blocks = heard.iter().filter_map(|message| match message {
            Message::PrePrepare { block, .. } => Some(Arc::clone(block)),
            _ => None,
        });
        let blocks: Vec<_> = blocks.collect();
        let known = choices.pick(&blocks)?;
        let mut header = known.header.clone();
        (header.view, header.proposer) = (view, ReplicaId(LIAR));
        if choices.byte().is_multiple_of(2) {
            header.height = height;
        }
        header.time_ms = Millis(header.time_ms.0 + u64::from(choices.byte()));
        let entries = known.entries.clone();
        let block = althing::chain::BlockParts::new(entries).into_block(header);
        let round = (Phase::Prepare, Epoch(0), view);
        let range = (block.header.height, vec![block.hash()]);
        let scheme = self.schemes[usize::from(LIAR)].as_ref();
        let prepare = Vote::sign(round, ReplicaId(LIAR), range, &CLUSTER, scheme);
        Some(Message::PrePrepare { block: Arc::new(block), prepare })
    }
}
