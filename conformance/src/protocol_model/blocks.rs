//! The world a case plays in: rounds, and every block that can exist in it, numbered.
//!
//! A *round* is a pair (epoch, view); rounds are numbered in the order of (epoch, view), which is the order
//! of certificates too.

use crate::protocol_model::Setup;

/// Most rounds, and the length of what is kept per round.
pub const ROUNDS: usize = 4;
/// Replicas that any case knows, members or not.
pub const REPLICAS: usize = 5;
/// A block by its number; its ancestors are known by it.
pub type BlockId = u8;
/// The block that needs no vote.
pub const GENESIS: BlockId = 0;
/// A prepared or commit certificate by its number: round and block. 0 is the genesis'.
pub type Certificate = u8;

/// One view of one epoch.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Its epoch.
    pub epoch: u8,
    /// Its view in that epoch.
    pub view: u8,
    /// Who leads it.
    pub primary: usize,
    /// Who votes in it: a bit per replica.
    pub members: u8,
}

/// What makes two blocks at one place differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What an honest primary proposes.
    Plain,
    /// What a liar, or a primary that forgot its first, proposes beside it.
    Other,
    /// The last block of its epoch.
    Config,
    /// Carries the REJOIN with this nonce.
    Rejoin(u8),
}

/// One block.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// 0 for the genesis.
    pub height: u8,
    /// The round of its first proposal.
    pub round: u8,
    /// The block before it.
    pub parent: BlockId,
    /// What it carries.
    pub kind: Kind,
}

/// All rounds, blocks and certificates of one case.
pub struct World {
    /// In the order of (epoch, view).
    pub rounds: Vec<Round>,
    /// By number.
    pub blocks: Vec<Block>,
    /// Per block, itself and all before it, a bit each.
    pub until: Vec<u64>,
    /// Per block, all that are on one chain with it.
    pub related: Vec<u64>,
    /// Per block, its children.
    pub children: Vec<Vec<BlockId>>,
    /// Per round, the blocks that can have a vote there.
    pub votable: Vec<u64>,
    /// Per nonce, the blocks that contain it or descend from one that does.
    pub after_rejoin: [u64; 3],
}

impl World {
    /// What can exist in a case.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let rounds = rounds(setup);
        let genesis = Block { height: 0, round: 0, parent: GENESIS, kind: Kind::Plain };
        let mut blocks = vec![genesis];
        let mut from = 0;
        for height in 1..=setup.heights {
            let below = from..blocks.len();
            from = blocks.len();
            for parent in below {
                for round in 0..rounds.len() {
                    if !follows(&rounds, &blocks[parent], round) {
                        continue;
                    }
                    for kind in kinds(setup, &rounds, round, height) {
                        let parent = u8::try_from(parent).expect("64 blocks at most");
                        let round = u8::try_from(round).expect("4 rounds at most");
                        blocks.push(Block { height, round, parent, kind });
                    }
                }
            }
        }
        assert!(blocks.len() <= 64, "a set of blocks is 64 bits: {} blocks", blocks.len());
        assert!(blocks.len() * rounds.len() < 255, "a certificate's number is 8 bits");
        let mut world = Self {
            until: Vec::new(),
            related: Vec::new(),
            children: vec![Vec::new(); blocks.len()],
            votable: Vec::new(),
            after_rejoin: [0; 3],
            rounds,
            blocks,
        };
        world.relate();
        world
    }

    fn relate(&mut self) {
        for (id, block) in self.blocks.iter().enumerate() {
            let before = if id == 0 { 0 } else { self.until[usize::from(block.parent)] };
            self.until.push(before | 1 << id);
            if id > 0 {
                self.children[usize::from(block.parent)].push(u8::try_from(id).expect("checked"));
            }
        }
        for (id, until) in self.until.iter().enumerate() {
            let after = self.until.iter().enumerate().filter(|(_, other)| *other >> id & 1 == 1);
            self.related.push(after.fold(*until, |all, (other, _)| all | 1 << other));
            for nonce in 0..3_u8 {
                let carried = |of: usize| self.blocks[of].kind == Kind::Rejoin(nonce);
                if (0..=id).any(|of| until >> of & 1 == 1 && carried(of)) {
                    self.after_rejoin[usize::from(nonce)] |= 1 << id;
                }
            }
        }
        for (number, round) in self.rounds.iter().enumerate() {
            let fits = |block: &Block| {
                let of = self.rounds[usize::from(block.round)];
                block.height > 0 && usize::from(block.round) <= number && of.epoch == round.epoch
            };
            let all = self.blocks.iter().enumerate().filter(|(_, block)| fits(block));
            self.votable.push(all.fold(0, |all, (id, _)| all | 1 << id));
        }
    }

    /// The block of a number.
    #[must_use]
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[usize::from(id)]
    }

    /// The blocks above `root` up to `tip`, which descends from it.
    #[must_use]
    pub fn path(&self, root: BlockId, tip: BlockId) -> u64 {
        self.until[usize::from(tip)] & !self.until[usize::from(root)]
    }

    /// The number of the certificate of a block in a round.
    #[must_use]
    pub fn certificate(&self, round: usize, block: BlockId) -> Certificate {
        let number = 1 + round * self.blocks.len() + usize::from(block);
        u8::try_from(number).expect("checked when the world was made")
    }

    /// Round and block of a certificate; the genesis' is of round 0.
    #[must_use]
    pub fn certified(&self, certificate: Certificate) -> (usize, BlockId) {
        let Some(number) = usize::from(certificate).checked_sub(1) else { return (0, GENESIS) };
        let block = u8::try_from(number % self.blocks.len()).expect("64 blocks at most");
        (number / self.blocks.len(), block)
    }

    /// A block for a reader: kind and view from the first height on, as `a0.b1`.
    #[must_use]
    pub fn name(&self, id: BlockId) -> String {
        if id == GENESIS {
            return "genesis".to_owned();
        }
        let block = self.block(id);
        let kind = match block.kind {
            Kind::Plain => "a",
            Kind::Other => "b",
            Kind::Config => "config",
            Kind::Rejoin(1) => "rejoin",
            Kind::Rejoin(_) => "rejoin'",
        };
        let round = &self.rounds[usize::from(block.round)];
        let epoch = if self.rounds.last().is_some_and(|last| last.epoch > 0) {
            format!("e{}v", round.epoch)
        } else {
            String::new()
        };
        let own = format!("{kind}{epoch}{}", round.view);
        if block.parent == GENESIS { own } else { format!("{}.{own}", self.name(block.parent)) }
    }
}

/// Epoch 0: replicas 0 to 3. Epoch 1: 4 in place of 1. Primaries go round from the lowest member.
fn rounds(setup: &Setup) -> Vec<Round> {
    let members: [&[usize]; 2] = [&[0, 1, 2, 3], &[0, 2, 3, 4]];
    let mut rounds = Vec::new();
    for (epoch, views) in setup.views.iter().enumerate() {
        for view in 0..*views {
            let members = members[epoch];
            rounds.push(Round {
                epoch: u8::try_from(epoch).expect("2 epochs at most"),
                view,
                primary: members[usize::from(view) % members.len()],
                members: members.iter().fold(0, |all, replica| all | 1 << replica),
            });
        }
    }
    assert!(rounds.len() <= ROUNDS, "{} rounds at most", ROUNDS);
    rounds
}

/// Whether a block of `round` can have that parent: within an epoch, or behind its CONFIG block.
fn follows(rounds: &[Round], parent: &Block, round: usize) -> bool {
    let epoch = rounds[round].epoch;
    if parent.height == 0 {
        return epoch == 0;
    }
    let before = rounds[usize::from(parent.round)].epoch;
    match parent.kind {
        Kind::Config => epoch == before + 1,
        _ => epoch == before && round >= usize::from(parent.round),
    }
}

fn kinds(setup: &Setup, rounds: &[Round], round: usize, height: u8) -> Vec<Kind> {
    let primary = Some(rounds[round].primary);
    let epochs = rounds.last().map_or(0, |last| last.epoch);
    let mut kinds = vec![Kind::Plain];
    let again = setup.crashes > 0 && setup.unreliable == primary;
    if (setup.liar == primary && setup.equivocates) || again {
        kinds.push(Kind::Other);
    }
    // A CONFIG block at the last height would have no child to speak of.
    if rounds[round].epoch < epochs && height < setup.heights {
        kinds.push(Kind::Config);
    }
    kinds.extend((1..=setup.nonces()).map(Kind::Rejoin));
    kinds
}
