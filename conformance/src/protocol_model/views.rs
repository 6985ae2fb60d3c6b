//! Leaving and entering views, and the next epoch: protocol.md 7, `consensus.md` 13.

use crate::protocol_model::blocks::{Certificate, Kind};
use crate::protocol_model::state::{Chain, NONE, Replica, State};
use crate::protocol_model::steps::{Act, Does, Steps, Votes, bits};
use crate::protocol_model::{Bug, Protocol};

impl Protocol {
    /// The certificates that a replica's VIEW-CHANGEs for a round carry.
    fn asked(&self, state: &State, replica: usize, round: usize) -> [Certificate; 2] {
        let lost = if self.is_unreliable(replica) { state.lost.asks[round] } else { NONE };
        [state.replicas[replica].asks[round], lost]
    }

    /// Others, or all, who asked for `round` or above; a liar asks for everything.
    fn asking(&self, state: &State, round: usize, without: Option<usize>) -> u32 {
        let rounds = &self.world.rounds;
        let later = (round..rounds.len()).filter(|later| self.epoch(*later) == self.epoch(round));
        let wants = |replica: usize| {
            self.setup.liar == Some(replica)
                || later.clone().any(|later| self.asked(state, replica, later) != [NONE; 2])
        };
        let members = (0..state.replicas.len()).filter(|id| self.is_member(*id, round));
        members.filter(|id| Some(*id) != without && wants(*id)).map(|_| 1).sum()
    }

    /// protocol.md 7.1 to 7.3. Timers may fire at any time.
    pub(super) fn ask(&self, state: &State, replica: usize, into: &mut Steps) {
        let me = &state.replicas[replica];
        let asked = usize::from(me.asked);
        let rounds = self.world.rounds.len();
        for round in asked + 1..rounds {
            if self.epoch(round) != self.epoch(asked) {
                break;
            }
            // R4, and the join rule with f = 1.
            let next_one = round == asked + 1
                && (me.is_normal() || self.asking(state, asked, None) >= self.quorum);
            let joins = self.asking(state, round, Some(replica)) >= 2;
            let skips = self.has(Bug::ViewsSkipped) && self.is_unreliable(replica);
            if !next_one && !joins && !skips {
                continue;
            }
            let mut next = *state;
            let own = &mut next.replicas[replica];
            own.asked = u8::try_from(round).expect("4 rounds at most");
            let quoted = if self.has(Bug::CertificateDropped) { 0 } else { own.best };
            own.asks[round] = quoted;
            self.add(into, Act { replica, does: Does::Ask(round, quoted) }, next);
        }
    }

    /// protocol.md 7.4: every base that q VIEW-CHANGEs for a round lead to.
    fn bases(&self, state: &State, votes: &Votes, round: usize) -> Vec<Certificate> {
        let lies = self.setup.liar.is_some_and(|liar| self.is_member(liar, round));
        let mut quoted: Vec<Certificate> = Vec::new();
        let mut asks: Vec<[Certificate; 2]> = Vec::new();
        for replica in 0..state.replicas.len() {
            if self.setup.liar != Some(replica) && self.is_member(replica, round) {
                let own = self.asked(state, replica, round);
                if own != [NONE; 2] {
                    quoted.extend(own.iter().filter(|certificate| **certificate != NONE));
                    asks.push(own);
                }
            }
        }
        let unchecked = self.has(Bug::NewViewUnchecked)
            && self.setup.liar == Some(self.world.rounds[round].primary);
        if asks.len() + usize::from(lies) < self.quorum as usize && !unchecked {
            return Vec::new();
        }
        if lies {
            // What a liar may quote: a certificate of a lower round, and nothing.
            let later = self.has(Bug::LaterEpochQuoted);
            for before in 0..self.world.rounds.len() {
                if before < round || (later && self.epoch(before) > self.epoch(round)) {
                    let blocks = bits(votes.prepared[before]);
                    quoted.extend(blocks.map(|block| self.world.certificate(before, block)));
                }
            }
            quoted.push(0);
        }
        quoted.sort_unstable();
        quoted.dedup();
        quoted.retain(|winner| {
            let most = self.wins(*winner);
            let fits = |own: &&[Certificate; 2]| {
                own.iter().any(|quoted| *quoted != NONE && self.wins(*quoted) <= most)
            };
            unchecked
                || asks.iter().filter(fits).count() + usize::from(lies) >= self.quorum as usize
        });
        for winner in &mut quoted {
            if self.epoch(self.world.certified(*winner).0) > self.epoch(round) {
                *winner = 0;
            }
        }
        quoted
    }

    /// protocol.md 7.4 and 7.5: lead a round, or enter it.
    pub(super) fn change_view(
        &self,
        state: &State,
        votes: &Votes,
        replica: usize,
        into: &mut Steps,
    ) {
        let me = &state.replicas[replica];
        let (entered, asked) = (usize::from(me.entered), usize::from(me.asked));
        for round in asked.max(entered + 1)..self.world.rounds.len() {
            if self.epoch(round) != self.epoch(entered) {
                break;
            }
            let primary = self.world.rounds[round].primary;
            if primary == replica {
                if asked == round {
                    for base in self.bases(state, votes, round) {
                        let mut next = *state;
                        self.enter(&mut next.replicas[replica], round, base);
                        if self.is_unreliable(replica) && self.has(Bug::UngatedPrePrepare) {
                            next.draft = base;
                        } else {
                            next.announced[round] = base;
                        }
                        self.add(into, Act { replica, does: Does::Lead(round, base) }, next);
                    }
                }
                continue;
            }
            let bases = if self.setup.liar == Some(primary) {
                self.bases(state, votes, round)
            } else {
                Some(state.announced[round]).filter(|base| *base != NONE).into_iter().collect()
            };
            for base in bases {
                let mut next = *state;
                self.enter(&mut next.replicas[replica], round, base);
                self.add(into, Act { replica, does: Does::Enter(round, base) }, next);
            }
        }
    }

    /// Enters a round from a base and PREPAREs it again.
    fn enter(&self, own: &mut Replica, round: usize, base: Certificate) {
        let (_, block) = self.world.certified(base);
        let root = self.world.block(block).parent;
        own.enter(round, Chain { root, tip: block, committed: root });
        own.best = self.higher(own.best, base);
    }

    /// protocol.md 4.4 in any mode, and 7.6: a commit certificate leads into its round.
    pub(super) fn learn(&self, state: &State, votes: &Votes, replica: usize, into: &mut Steps) {
        let me = &state.replicas[replica];
        for round in 0..self.world.rounds.len() {
            if self.epoch(round) != self.epoch(usize::from(me.entered)) {
                continue;
            }
            for block in bits(votes.committed[round]) {
                let certificate = self.world.certificate(round, block);
                if self.rank(certificate) > self.rank(me.best) {
                    let mut next = *state;
                    next.replicas[replica].best = certificate;
                    self.add(into, Act { replica, does: Does::Learn(certificate) }, next);
                }
                let entered = usize::from(me.entered);
                let free = usize::from(me.asked) <= round && round > entered;
                let back = self.has(Bug::FollowsBack) && round >= entered && !me.is_normal();
                if free || back {
                    let mut next = *state;
                    let own = &mut next.replicas[replica];
                    own.enter(round, Chain { root: block, tip: block, committed: block });
                    own.best = self.higher(own.best, certificate);
                    next.followed = true;
                    self.add(into, Act { replica, does: Does::Follow(certificate) }, next);
                }
            }
        }
    }

    /// `consensus.md` 13: the next epoch begins behind the committed CONFIG block.
    pub(super) fn next_epoch(
        &self,
        state: &State,
        votes: &Votes,
        replica: usize,
        into: &mut Steps,
    ) {
        let me = &state.replicas[replica];
        let Some(first) = (0..self.world.rounds.len())
            .find(|round| self.epoch(*round) > self.epoch(usize::from(me.entered)))
        else {
            return;
        };
        if !self.is_member(replica, first) {
            return;
        }
        let proofs =
            if self.has(Bug::ChildBeforeCommit) { &votes.prepared } else { &votes.committed };
        for (round, proof) in proofs.iter().enumerate().take(first) {
            for block in bits(*proof) {
                if self.world.block(block).kind != Kind::Config {
                    continue;
                }
                let certificate = self.world.certificate(round, block);
                let mut next = *state;
                let own = &mut next.replicas[replica];
                own.enter(first, Chain { root: block, tip: block, committed: block });
                own.best = self.higher(own.best, certificate);
                self.add(into, Act { replica, does: Does::NextEpoch(certificate) }, next);
            }
        }
    }
}
