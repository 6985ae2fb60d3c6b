//! What can happen next: the rules of `docs/protocol.md` 4 to 7 and `consensus.md` 6, one function each.

use crate::protocol_model::blocks::{Block, BlockId, Certificate, GENESIS, Kind, ROUNDS};
use crate::protocol_model::state::{Fence, NONE, Replica, State};
use crate::protocol_model::{Bug, Protocol};

/// The certificates that the votes ever cast amount to, per round; a bit per block.
pub struct Votes {
    /// With a quorum of PREPAREs.
    pub prepared: [u64; ROUNDS],
    /// With a quorum of COMMITs.
    pub committed: [u64; ROUNDS],
}

/// What a step does; its text is made only for a trace.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// Proposes a block.
    Propose(BlockId),
    /// PREPAREs a block.
    Accept(BlockId),
    /// PREPAREs a second block at one place.
    AcceptSecond(BlockId),
    /// COMMITs up to a block.
    Commit(BlockId),
    /// Sends VIEW-CHANGE for a round with a certificate.
    Ask(usize, Certificate),
    /// Leads a round from a base.
    Lead(usize, Certificate),
    /// Enters a round from a base.
    Enter(usize, Certificate),
    /// Takes in a commit certificate.
    Learn(Certificate),
    /// Follows one into its round.
    Follow(Certificate),
    /// Begins the next epoch behind its CONFIG block.
    NextEpoch(Certificate),
    /// The disk has all that was written.
    Sync,
    /// Loses what is not on the disk.
    Crash,
    /// Loses its disk.
    LoseDisk,
    /// Restarts behind the fence.
    RestartFenced,
    /// Leaves the fence with a commit certificate.
    LeaveFence(Certificate),
}

pub(super) type Steps = Vec<(Act, State)>;

/// Who does what.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// The replica.
    pub replica: usize,
    /// What it does.
    pub does: Does,
}

pub(super) fn bits(mut set: u64) -> impl Iterator<Item = BlockId> {
    std::iter::from_fn(move || {
        let at = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (at < 64).then(|| u8::try_from(at).expect("below 64"))
    })
}

impl Protocol {
    /// Every step possible.
    pub(super) fn steps(&self, state: &State, into: &mut Steps) {
        let votes = self.votes(state);
        for replica in 0..state.replicas.len() {
            if self.setup.liar == Some(replica) || self.setup.silent == Some(replica) {
                continue;
            }
            let fenced = self.is_unreliable(replica) && state.fence == Fence::Shut;
            if fenced {
                self.behind_the_fence(state, &votes, into);
                continue;
            }
            let me = &state.replicas[replica];
            if self.is_member(replica, usize::from(me.entered)) {
                self.normal_case(state, &votes, replica, into);
                self.ask(state, replica, into);
                self.change_view(state, &votes, replica, into);
                if self.setup.learns {
                    self.learn(state, &votes, replica, into);
                }
            }
            self.next_epoch(state, &votes, replica, into);
            if self.is_unreliable(replica) {
                self.fail(state, into);
            }
        }
    }

    pub(super) fn is_unreliable(&self, replica: usize) -> bool {
        self.setup.unreliable == Some(replica)
    }

    pub(super) fn is_member(&self, replica: usize, round: usize) -> bool {
        self.world.rounds[round].members >> replica & 1 == 1
    }

    pub(super) fn epoch(&self, round: usize) -> u8 {
        self.world.rounds[round].epoch
    }

    /// The order of certificates: (epoch, view, height).
    pub(super) fn rank(&self, certificate: Certificate) -> (u8, u8) {
        let (round, block) = self.world.certified(certificate);
        let height = self.world.block(block).height;
        let number = if self.has(Bug::EpochIgnored) {
            self.world.rounds[round].view
        } else {
            u8::try_from(round).expect("4 rounds at most")
        };
        (number, height)
    }

    /// The order by which a NEW-VIEW's base wins: that of certificates.
    pub(super) fn wins(&self, certificate: Certificate) -> (u8, u8) {
        let (view, height) = self.rank(certificate);
        if self.has(Bug::WinnerByHeight) { (height, view) } else { (view, height) }
    }

    pub(super) fn higher(&self, one: Certificate, two: Certificate) -> Certificate {
        if self.rank(two) > self.rank(one) { two } else { one }
    }

    /// All votes of one replica in one round: PREPAREs, COMMITs.
    pub(super) fn cast(&self, state: &State, replica: usize, round: usize) -> (u64, u64) {
        let of = |memory: &Replica| {
            let chain = &memory.chains[round];
            let path = |tip| self.world.path(chain.root, tip);
            (path(chain.tip), path(chain.committed))
        };
        let (mut prepares, mut commits) = of(&state.replicas[replica]);
        if self.is_unreliable(replica) {
            let (more_prepares, more_commits) = of(&state.lost);
            prepares |= more_prepares;
            commits |= more_commits;
        }
        (prepares, commits)
    }

    /// The certificates that exist: a liar's vote counts for every block.
    #[must_use]
    pub fn votes(&self, state: &State) -> Votes {
        let mut votes = Votes { prepared: [0; ROUNDS], committed: [0; ROUNDS] };
        for (round, shape) in self.world.rounds.iter().enumerate() {
            // Per number k, the blocks with more than k votes.
            let (mut prepares, mut commits) = ([0_u64; 5], [0_u64; 5]);
            let quorum = self.quorum as usize;
            for replica in (0..state.replicas.len()).filter(|id| shape.members >> id & 1 == 1) {
                let all = self.world.votable[round];
                let lies = self.setup.liar == Some(replica);
                let (own_prepares, own_commits) =
                    if lies { (all, all) } else { self.cast(state, replica, round) };
                for count in (1..5).rev() {
                    prepares[count] |= prepares[count - 1] & own_prepares;
                    commits[count] |= commits[count - 1] & own_commits;
                }
                prepares[0] |= own_prepares;
                commits[0] |= own_commits;
            }
            votes.prepared[round] = prepares[quorum - 1];
            votes.committed[round] = commits[quorum - 1];
        }
        votes
    }

    /// Adds a step; what it writes is durable before its messages leave, unless a rule says otherwise (6.1).
    pub(super) fn add(&self, into: &mut Steps, act: Act, mut next: State) {
        let unsynced = match act.does {
            // R1: a proposal leaves while it is being written.
            Does::Propose(_) => true,
            Does::Accept(_) => self.has(Bug::UngatedPrepare),
            Does::Lead(..) => self.has(Bug::UngatedPrePrepare),
            _ => false,
        };
        let unsynced = unsynced || self.has(Bug::VotesBeforeDurable);
        if self.is_unreliable(act.replica) && self.setup.crashes > 0 {
            if next.crashes == self.setup.crashes {
                next.disk = Replica::EMPTY;
            } else if !unsynced {
                next.disk = next.replicas[act.replica];
            }
        }
        into.push((act, next));
    }

    /// protocol.md 4 and 5: propose, PREPARE, COMMIT in chain order.
    fn normal_case(&self, state: &State, votes: &Votes, replica: usize, into: &mut Steps) {
        let me = &state.replicas[replica];
        let round = usize::from(me.entered);
        if self.is_unreliable(replica) && state.floor != NONE && me.entered <= state.floor {
            return;
        }
        let act = |does| Act { replica, does };
        let chain = *me.chain();
        if me.is_normal() || self.has(Bug::CommitAfterViewChange) {
            // Prepared at a height covers what is below it: one range vote.
            let open = self.world.path(chain.root, chain.tip) & votes.prepared[round];
            for block in bits(open & !self.world.until[usize::from(chain.committed)]) {
                let mut next = *state;
                let own = &mut next.replicas[replica];
                own.chains[round].committed = block;
                own.best = self.higher(own.best, self.world.certificate(round, block));
                self.add(into, act(Does::Commit(block)), next);
            }
        }
        if !me.is_normal() {
            return;
        }
        let primary = self.world.rounds[round].primary;
        for block in self.world.children[usize::from(chain.tip)].iter().copied() {
            let shape = self.world.block(block);
            if usize::from(shape.round) != round || !self.is_valid(state, shape) {
                continue;
            }
            let does = if primary == replica {
                if !self.may_propose(state, replica, shape) {
                    continue;
                }
                Does::Propose(block)
            } else if self.is_proposed(state, primary, round, block) {
                Does::Accept(block)
            } else {
                continue;
            };
            let mut next = *state;
            next.replicas[replica].chains[round].tip = block;
            self.add(into, act(does), next);
        }
        if self.has(Bug::TwoBlocksAccepted) && self.is_unreliable(replica) {
            self.accept_second(state, round, into);
        }
    }

    /// A REJOIN is in a block only after it was signed.
    fn is_valid(&self, state: &State, block: &Block) -> bool {
        !matches!(block.kind, Kind::Rejoin(nonce) if nonce > state.nonces)
    }

    /// An honest primary proposes one block per height; R1: none in the view it restarted in.
    fn may_propose(&self, state: &State, replica: usize, block: &Block) -> bool {
        let crashed = self.is_unreliable(replica) && state.crashes > 0;
        let allowed = !crashed || state.restarted != block.round || self.has(Bug::ProposesAgain);
        // After a restart it has other requests to propose than before.
        allowed && (block.kind == Kind::Other) == crashed
    }

    /// A PRE-PREPARE is the primary's PREPARE.
    fn is_proposed(&self, state: &State, primary: usize, round: usize, block: BlockId) -> bool {
        self.setup.liar == Some(primary) || self.cast(state, primary, round).0 >> block & 1 == 1
    }

    fn accept_second(&self, state: &State, round: usize, into: &mut Steps) {
        let Some(replica) = self.setup.unreliable else { return };
        let chain = *state.replicas[replica].chain();
        let tip = self.world.block(chain.tip);
        if state.lost != Replica::EMPTY || chain.tip == GENESIS || usize::from(tip.round) != round {
            return;
        }
        let primary = self.world.rounds[round].primary;
        for block in self.world.children[usize::from(tip.parent)].iter().copied() {
            let fresh = usize::from(self.world.block(block).round) == round && block != chain.tip;
            if fresh && self.is_proposed(state, primary, round, block) {
                let mut next = *state;
                next.lost.chains[round] = chain;
                let own = &mut next.replicas[replica].chains[round];
                own.tip = block;
                if own.committed == chain.tip {
                    own.committed = tip.parent;
                }
                self.add(into, Act { replica, does: Does::AcceptSecond(block) }, next);
            }
        }
    }
}
