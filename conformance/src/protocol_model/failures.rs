//! Crashes and lost disks, R1 and R3: protocol.md 6, `consensus.md` 6.

use crate::protocol_model::blocks::BlockId;
use crate::protocol_model::state::{Chain, Fence, NONE, Replica, State};
use crate::protocol_model::steps::{Act, Does, Steps, Votes, bits};
use crate::protocol_model::{Bug, Protocol};

impl Protocol {
    /// Syncs, crashes and lost disks of the unreliable replica.
    pub(super) fn fail(&self, state: &State, into: &mut Steps) {
        let Some(replica) = self.setup.unreliable else { return };
        let me = state.replicas[replica];
        let act = |does| Act { replica, does };
        if state.crashes < self.setup.crashes {
            if state.disk != me {
                let mut next = *state;
                next.disk = me;
                if next.draft != NONE {
                    next.announced[usize::from(me.entered)] = next.draft;
                    next.draft = NONE;
                }
                into.push((act(Does::Sync), next));
            }
            let mut next = *state;
            next.lost = me;
            next.replicas[replica] = state.disk;
            next.crashes += 1;
            next.restarted = state.disk.entered;
            next.draft = NONE;
            if self.looks_rolled_back(state, replica) {
                next.fence = Fence::Shut;
                next.falsely_fenced = true;
            }
            self.add(into, act(Does::Crash), next);
        }
        if state.losses < self.setup.losses && me != Replica::EMPTY {
            let mut next = *state;
            next.lost = me;
            next.replicas[replica] = Replica::EMPTY;
            next.losses += 1;
            next.floor = NONE;
            next.fence = if self.has(Bug::NoFence) { Fence::Open } else { Fence::Shut };
            if !self.has(Bug::NonceFromDisk) {
                next.nonces += 1;
            }
            if self.has(Bug::HeightForNonce) {
                // One liar understates; of the others it is told the height of one.
                for other in (0..4).filter(|id| *id != replica && self.setup.liar != Some(*id)) {
                    let best = state.replicas[other].best;
                    next.bar = self.world.block(self.world.certified(best).1).height;
                    into.push((act(Does::LoseDisk), next));
                }
                return;
            }
            into.push((act(Does::LoseDisk), next));
        }
    }

    /// R3: whether others could show a vote that the log does not hold. Its own proposals in the view the
    /// log is in are no sign (R1).
    fn looks_rolled_back(&self, state: &State, replica: usize) -> bool {
        if self.has(Bug::VotesBeforeDurable) || self.has(Bug::UngatedPrepare) {
            // Whether such a bug is noticed is not what these cases are about.
            return false;
        }
        let (me, disk) = (&state.replicas[replica], &state.disk);
        let newer = |round: usize| {
            let (live, log) = (&me.chains[round], &disk.chains[round]);
            let path = |of: &Chain, tip| self.world.path(of.root, tip);
            let prepares = path(live, live.tip) & !path(log, log.tip);
            let commits = path(live, live.committed) & !path(log, log.committed);
            let exempt = |block: &BlockId| {
                let own = self.world.rounds[round].primary == replica
                    && usize::from(self.world.block(*block).round) == round;
                let seen = (0..4).any(|other| {
                    other != replica && self.cast(state, other, round).0 >> block & 1 == 1
                });
                own && !(self.has(Bug::NoExemption) && seen)
            };
            commits != 0
                || bits(prepares).any(|block| !exempt(&block))
                || me.asks[round] != disk.asks[round]
        };
        (0..self.world.rounds.len()).any(newer)
    }

    /// R3: what a fenced replica does, which is never a vote.
    pub(super) fn behind_the_fence(&self, state: &State, votes: &Votes, into: &mut Steps) {
        let Some(replica) = self.setup.unreliable else { return };
        let act = |does| Act { replica, does };
        if self.has(Bug::FenceNotDurable) {
            let mut next = *state;
            next.fence = Fence::Open;
            into.push((act(Does::RestartFenced), next));
        }
        let nonce = &self.world.after_rejoin[usize::from(state.nonces)];
        for round in 0..self.world.rounds.len() {
            for block in bits(votes.committed[round]) {
                let leaves = match self.setup.bug {
                    Some(Bug::AnyCertificate) => true,
                    Some(Bug::HeightForNonce) => self.world.block(block).height > state.bar,
                    _ => nonce >> block & 1 == 1,
                };
                if !leaves {
                    continue;
                }
                let certificate = self.world.certificate(round, block);
                let mut next = *state;
                let own = &mut next.replicas[replica];
                own.enter(round, Chain { root: block, tip: block, committed: block });
                own.best = certificate;
                next.fence = Fence::Left;
                if !self.has(Bug::SameView) {
                    next.floor = own.entered;
                }
                into.push((act(Does::LeaveFence(certificate)), next));
            }
        }
    }
}
