//! Linearizable reads: the highest height that a quorum may have helped to commit, without a log
//! write (protocol.md 12).

use std::collections::BTreeMap;

use crate::chain::Certificate;
use crate::ordering::{Core, Message, Output, ReadAnswer, ReadNonce, Recipients};
use crate::planted::{self, Bug};
use crate::types::{Height, LogPosition, ReplicaId};

/// Without a result for so long a question is asked again, with a fresh nonce.
const RETRY_MS: u64 = 500;
/// After so many questions without a quorum a read fails.
const ROUNDS_MAX: u32 = 10;
/// Most questions that wait for execution at once.
const WAITING_MAX: usize = 64;

/// A read and how many questions were asked for it.
#[derive(Clone, Copy)]
struct Waiter {
    id: u64,
    rounds: u32,
}

/// One question and what was answered.
struct Round {
    nonce: ReadNonce,
    waiters: Vec<Waiter>,
    asked_ms: u64,
    answers: BTreeMap<ReplicaId, Height>,
}

/// Reads by how far they have come.
pub(super) struct Reads {
    start: [u8; 32],
    counter: u64,
    /// Not asked for yet.
    queue: Vec<Waiter>,
    asking: Option<Round>,
    /// Answered by a quorum, waiting for the height to be executed.
    waiting: Vec<(Height, Round)>,
}

impl Reads {
    pub fn new(start: [u8; 32]) -> Self {
        Self { start, counter: 0, queue: Vec::new(), asking: None, waiting: Vec::new() }
    }
}

impl Core {
    pub(super) fn on_read_request(&mut self, id: u64) {
        if self.quarantined {
            self.out.push(Output::ReadFailed { id });
        } else {
            self.reads.queue.push(Waiter { id, rounds: 0 });
        }
    }

    /// Questions asked so far: the last one's number.
    #[cfg(test)]
    pub(super) fn reads_asked(&self) -> u64 {
        self.reads.counter
    }

    /// The highest height this replica may have helped to commit.
    fn own_mark(&self) -> Height {
        let certified = self.blocks.certificate.as_ref().map_or(Height(0), |cert| cert.height);
        self.view.mark.max(certified).max(self.blocks.executed.height)
    }

    pub(super) fn on_read_index(&mut self, peer: ReplicaId, nonce: ReadNonce) {
        if !self.is_voter() || self.quarantined || !self.fence.is_cleared() {
            return;
        }
        let answer = ReadAnswer {
            nonce,
            epoch: self.membership.epoch,
            mark: self.own_mark(),
            committed: self.blocks.committed.height,
        };
        let gate = self.fence.gate();
        self.send(Recipients::One(peer), Message::ReadAnswer(answer), gate);
    }

    pub(super) fn on_read_answer(&mut self, peer: ReplicaId, answer: &ReadAnswer) {
        let epoch = self.membership.epoch;
        if answer.epoch != epoch || self.membership.voter(peer).is_none() {
            return;
        }
        // A height this peer could not prove when asked is not believed a second time.
        let doubted = self.peers.get(&peer).and_then(|peer| peer.doubted);
        let unproved = doubted.is_some_and(|(height, asked_ms)| {
            answer.mark >= height && self.now_ms >= asked_ms + RETRY_MS
        });
        let Some(round) = self.reads.asking.as_mut() else { return };
        if round.nonce == answer.nonce && !unproved {
            round.answers.insert(peer, answer.mark);
        }
    }

    /// Moves every read as far as it can go.
    pub(super) fn advance_reads(&mut self) {
        if self.quarantined {
            return self.fail_reads();
        }
        self.retry_reads();
        if self.reads.asking.is_none() && !self.reads.queue.is_empty() {
            self.ask();
        }
        self.settle_question();
        self.finish_reads();
    }

    fn ask(&mut self) {
        let retried = self.reads.queue.iter().any(|waiter| waiter.rounds > 0);
        self.reads.counter += u64::from(!(retried && planted::is(Bug::ReusedReadNonce)));
        self.counters.read_rounds += 1;
        let nonce = ReadNonce { start: self.reads.start, counter: self.reads.counter };
        let mut answers = BTreeMap::new();
        if self.is_voter() && self.fence.is_cleared() {
            answers.insert(self.own, self.own_mark());
        }
        let waiters = std::mem::take(&mut self.reads.queue);
        self.reads.asking = Some(Round { nonce, waiters, asked_ms: self.now_ms, answers });
        self.send(Recipients::Voters, Message::ReadIndex { nonce }, LogPosition(0));
    }

    /// This replica votes from now on: it counts, and those that do so already answer it.
    pub(super) fn vote_on_reads(&mut self) {
        let mark = self.own_mark();
        let Some(round) = self.reads.asking.as_mut() else { return };
        round.answers.insert(self.own, mark);
        let nonce = round.nonce;
        self.send(Recipients::Voters, Message::ReadIndex { nonce }, LogPosition(0));
    }

    /// A peer that votes from now on could not answer before.
    pub(super) fn ask_peer_again(&mut self, peer: ReplicaId) {
        if let Some(round) = &self.reads.asking
            && !round.answers.contains_key(&peer)
        {
            self.tell(peer, Message::ReadIndex { nonce: round.nonce });
        }
    }

    fn settle_question(&mut self) {
        let q = self.quorum.q();
        let full = self.reads.asking.as_ref().is_some_and(|round| round.answers.len() >= q);
        if !full || self.reads.waiting.len() >= WAITING_MAX {
            return;
        }
        let Some(round) = self.reads.asking.take() else { return };
        // The maximum: of two quorums' common replicas only one is surely correct.
        let mut marks: Vec<Height> = round.answers.values().copied().collect();
        marks.sort_unstable();
        let behind = if planted::is(Bug::WeakRead) { self.quorum.weak() } else { 1 };
        let height = marks.iter().rev().nth(behind - 1).copied().unwrap_or_default();
        self.reads.waiting.push((height, round));
        if !self.reads.queue.is_empty() {
            self.ask();
        }
    }

    fn finish_reads(&mut self) {
        let executed = self.blocks.executed.height;
        let mut at = 0;
        while let Some((height, _)) = self.reads.waiting.get(at) {
            if *height > executed {
                at += 1;
                continue;
            }
            let (height, round) = self.reads.waiting.remove(at);
            for waiter in round.waiters {
                self.out.push(Output::ReadReady { id: waiter.id, height });
            }
        }
    }

    /// A height this replica has itself prepared or seen certified.
    fn known_height(&self) -> Height {
        let prepared = self.blocks.prepared.as_ref().map_or(Height(0), |(cert, _)| cert.height);
        let certified = self.blocks.certificate.as_ref().map_or(Height(0), |cert| cert.height);
        prepared.max(certified).max(self.blocks.executed.height)
    }

    fn retry_reads(&mut self) {
        let now = self.now_ms;
        let late = |round: &Round| now >= round.asked_ms + RETRY_MS;
        if self.reads.asking.as_ref().is_some_and(late)
            && let Some(round) = self.reads.asking.take()
        {
            self.requeue(round);
        }
        let known = self.known_height();
        let mut at = 0;
        while let Some((height, round)) = self.reads.waiting.get(at) {
            if !late(round) || *height <= known {
                at += 1;
                continue;
            }
            let claims: Vec<(ReplicaId, Height)> = round
                .answers
                .iter()
                .filter(|(_, claimed)| **claimed > known)
                .map(|(peer, claimed)| (*peer, *claimed))
                .collect();
            if claims.iter().all(|claim| self.is_proven(*claim)) {
                at += 1;
                continue;
            }
            let (_, round) = self.reads.waiting.remove(at);
            for claim in claims {
                self.doubt(claim);
            }
            self.requeue(round);
        }
    }

    fn is_proven(&self, (peer, height): (ReplicaId, Height)) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.proven >= height)
    }

    /// Asks for the certificate behind a claimed height.
    fn doubt(&mut self, (peer, height): (ReplicaId, Height)) {
        if peer == self.own || self.is_proven((peer, height)) {
            return;
        }
        let now = self.now_ms;
        let known = self.peers.entry(peer).or_default();
        if known.doubted.is_none_or(|(doubted, _)| height < doubted) {
            known.doubted = Some((height, now));
        }
        self.tell(peer, Message::ReadProof { mark: height });
    }

    /// A peer has shown a certificate for `height`.
    pub(super) fn proved(&mut self, peer: ReplicaId, height: Height) {
        let known = self.peers.entry(peer).or_default();
        known.proven = known.proven.max(height);
        if known.doubted.is_some_and(|(doubted, _)| height >= doubted) {
            known.doubted = None;
        }
    }

    pub(super) fn on_read_proof(&mut self, peer: ReplicaId, mark: Height) {
        let prepared = self.blocks.prepared.as_ref().map(|(certificate, _)| certificate);
        let both = [self.blocks.certificate.as_ref(), prepared];
        let proof = both.into_iter().flatten().max_by_key(|cert: &&Certificate| cert.height);
        if let Some(proof) = proof.filter(|proof| proof.height >= mark).cloned() {
            self.tell(peer, Message::Certificate(proof));
        }
    }

    fn requeue(&mut self, round: Round) {
        for waiter in round.waiters {
            let waiter = Waiter { rounds: waiter.rounds + 1, ..waiter };
            if waiter.rounds >= ROUNDS_MAX {
                self.out.push(Output::ReadFailed { id: waiter.id });
            } else {
                self.reads.queue.push(waiter);
            }
        }
    }

    /// A new view: heights above its base may be gone, so every question is asked afresh.
    pub(super) fn restart_reads(&mut self) {
        let rounds: Vec<Round> = std::mem::take(&mut self.reads.waiting)
            .into_iter()
            .map(|(_, round)| round)
            .chain(self.reads.asking.take())
            .collect();
        for round in rounds {
            self.reads.queue.extend(round.waiters);
        }
    }

    fn fail_reads(&mut self) {
        self.restart_reads();
        for waiter in std::mem::take(&mut self.reads.queue) {
            self.out.push(Output::ReadFailed { id: waiter.id });
        }
    }

    pub(super) fn read_deadline(&self) -> Option<u64> {
        let asking = self.reads.asking.iter();
        let waiting = self.reads.waiting.iter().map(|(_, round)| round);
        let deadlines = asking.chain(waiting).map(|round| round.asked_ms + RETRY_MS);
        deadlines.filter(|at| *at > self.now_ms).min()
    }
}
