//! What must never be seen in any state, and what must be seen in some.

use crate::protocol_model::blocks::{REPLICAS, ROUNDS};
use crate::protocol_model::search::Model;
use crate::protocol_model::state::{Fence, NONE, Replica, State};
use crate::protocol_model::steps::{Act, Votes};
use crate::protocol_model::{Bug, Protocol};

type Shows = fn(&Protocol, &State, &Votes) -> bool;

/// What a case may demand to be reached, by name.
pub const GOALS: &[(&str, Shows)] = &[
    ("commit in view 0", |_, _, votes| votes.committed[0] != 0),
    ("commit in view 1", |_, _, votes| votes.committed[1] != 0),
    ("commit in view 2", |_, _, votes| votes.committed[2] != 0),
    ("commit in view 3", |_, _, votes| votes.committed[3] != 0),
    ("carried certificate", |model, _, votes| {
        (1..model.world.rounds.len()).any(|round| model.older(votes.committed[round], round) != 0)
    }),
    ("carried over two views", |model, _, votes| {
        (2..model.world.rounds.len())
            .any(|round| model.older(votes.committed[round], round - 1) != 0)
    }),
    ("two heights committed", |model, _, votes| {
        votes.committed.iter().any(|all| *all & model.at_height(2) != 0)
    }),
    ("fence left", |_, state, _| state.fence == Fence::Left),
    ("vote after the fence decides", |model, state, votes| {
        state.fence == Fence::Left && model.decides(state, votes)
    }),
    ("commit while fenced", |_, state, votes| {
        state.fence == Fence::Shut && votes.committed.iter().any(|all| *all != 0)
    }),
    ("vote after the restart decides", |model, state, votes| {
        state.crashes > 0 && state.fence == Fence::Open && model.decides(state, votes)
    }),
    ("proposal lost in a crash", |_, state, _| {
        state.crashes > 0 && state.lost.chains[usize::from(state.restarted)].tip != 0
    }),
    ("follows a certificate", |_, state, _| state.followed),
    ("votes where it followed", |model, state, votes| {
        state.followed && model.votes_after_following(state, votes)
    }),
    ("commit in the next epoch", |model, _, votes| {
        (0..ROUNDS).any(|round| {
            model.world.rounds.get(round).is_some_and(|shape| shape.epoch > 0)
                && votes.committed[round] != 0
        })
    }),
    ("view change in the next epoch", |model, _, votes| {
        (0..ROUNDS).any(|round| {
            model.world.rounds.get(round).is_some_and(|shape| shape.epoch > 0 && shape.view > 0)
                && votes.committed[round] != 0
        })
    }),
];

impl Protocol {
    /// The blocks of a set first proposed before a round.
    fn older(&self, set: u64, round: usize) -> u64 {
        let before = |id: &usize| usize::from(self.world.blocks[*id].round) < round;
        (0..self.world.blocks.len()).filter(before).fold(0, |all, id| all | 1 << id) & set
    }

    fn at_height(&self, height: u8) -> u64 {
        let there = |id: &usize| self.world.blocks[*id].height == height;
        (0..self.world.blocks.len()).filter(there).fold(0, |all, id| all | 1 << id)
    }

    /// Whether a commit needs the COMMIT that the unreliable replica cast after it came back.
    fn decides(&self, state: &State, votes: &Votes) -> bool {
        let Some(replica) = self.setup.unreliable else { return false };
        let mut without = *state;
        without.replicas[replica] = Replica::EMPTY;
        self.votes(&without).committed != votes.committed
    }

    /// Whether a replica that followed a certificate into a round COMMITted above it there.
    fn votes_after_following(&self, state: &State, votes: &Votes) -> bool {
        state.replicas.iter().any(|replica| {
            let chain = replica.chain();
            chain.committed != chain.root
                && chain.root != 0
                && votes.committed[usize::from(replica.entered)] >> chain.root & 1 == 1
        })
    }

    /// Two committed blocks that no chain holds both.
    fn fork(&self, votes: &Votes) -> Option<String> {
        let all = votes.committed.iter().fold(0, |all, round| all | round);
        let mut rest = all;
        while rest != 0 {
            let id = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let against = all & !self.world.related[id];
            if against != 0 {
                let name = |id: usize| self.world.name(u8::try_from(id).expect("below 64"));
                let (one, two) = (name(id), name(against.trailing_zeros() as usize));
                return Some(format!("{one} and {two} are both committed"));
            }
        }
        None
    }

    /// Two PREPAREs or COMMITs of one replica at one height of one round, though it lost no disk.
    fn double_vote(&self, state: &State) -> Option<String> {
        let replica = self.setup.unreliable.filter(|_| state.crashes > 0)?;
        for round in 0..self.world.rounds.len() {
            let (prepares, commits) = self.cast(state, replica, round);
            for height in 1..=self.setup.heights {
                for (votes, phase) in [(prepares, "PREPARE"), (commits, "COMMIT")] {
                    if (votes & self.at_height(height)).count_ones() > 1 {
                        return Some(format!(
                            "honest replica {replica} cast {phase} for two blocks at height {height} of view {round}"
                        ));
                    }
                }
            }
        }
        None
    }
}

impl Model for Protocol {
    type State = State;
    type Step = Act;

    fn initial(&self) -> State {
        let mut lost = Replica::EMPTY;
        if self.setup.bug == Some(Bug::ViewsSkipped) {
            // It asked for the last view before it lost its disk: two steps less to search.
            lost.asks[self.world.rounds.len() - 1] = 0;
        }
        State {
            replicas: [Replica::EMPTY; REPLICAS],
            disk: Replica::EMPTY,
            lost,
            announced: [NONE; ROUNDS],
            draft: NONE,
            fence: if self.setup.starts_fenced { Fence::Shut } else { Fence::Open },
            floor: NONE,
            bar: 0,
            nonces: u8::from(self.setup.starts_fenced),
            restarted: NONE,
            crashes: 0,
            losses: 0,
            falsely_fenced: false,
            followed: false,
        }
    }

    fn successors(&self, state: &State, into: &mut Vec<(Act, State)>) {
        self.steps(state, into);
    }

    fn text(&self, step: &Act) -> String {
        self.describe(*step)
    }

    fn fingerprint(&self, state: &State) -> u64 {
        let members = if self.setup.views.len() > 1 { REPLICAS } else { REPLICAS - 1 };
        state.fingerprint(members, self.setup.unreliable.is_some())
    }

    fn broken_rule(&self, state: &State) -> Option<String> {
        if state.falsely_fenced {
            return Some(
                "a replica is fenced although it lost nothing that it promised".to_owned(),
            );
        }
        self.fork(&self.votes(state))
            .or_else(|| if self.checks_votes() { self.double_vote(state) } else { None })
    }

    fn goals(&self) -> &[&'static str] {
        &self.goals
    }

    fn reaches(&self, goal: usize, state: &State) -> bool {
        let named = GOALS.iter().find(|(name, _)| *name == self.goals[goal]);
        named.is_some_and(|(_, shows)| shows(self, state, &self.votes(state)))
    }
}
