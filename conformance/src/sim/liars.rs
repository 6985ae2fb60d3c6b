//! Byzantine replicas: production code whose words are bent on their way out, or that is told things on
//! their way in. Each lie is one attack of faults.md 3.3; a liar counts against f, so a stall is a bug.

use std::collections::BTreeSet;
use std::sync::Arc;

use althing::chain::{Block, BlockParts, Certificate, Entry, Phase, Vote};
use althing::codec::Encode;
use althing::crypto::Scheme;
use althing::ordering::{Message, NewView, ViewChange};
use althing::types::{ClusterId, Digest, Epoch, Height, Millis, ReplicaId, View};
use bytes::Bytes;

use crate::sim::plan::{MILLI, Micros};
use crate::sim::random::Random;

/// What a liar does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Says nothing, to its victims or to all.
    Silent,
    /// Each message late, just under what would have it replaced.
    Slow,
    /// Small changes: one more or less, another digest, an older value, a vote left out.
    Disrupter,
    /// The same with any number.
    Wild,
    /// As primary another block to half of the others.
    Equivocator,
    /// VIEW-CHANGEs without the certificates it holds.
    Forgetful,
    /// NEW-VIEWs from another set of VIEW-CHANGEs for half of the others.
    TwoNewViews,
    /// As primary blocks without values, or with others.
    Withholder,
    /// As primary no bundle of one organisation.
    Censor,
    /// Its clock far ahead, or standing still.
    BadClock,
    /// ReadIndex answers of 0 and of 2^62.
    ReadLiar,
    /// A height in its STATUS that nobody reached.
    Boaster,
    /// Old frames again, also those of earlier processes.
    Replayer,
    /// Certificates on other blocks than theirs.
    Swapper,
    /// VIEW-CHANGEs for huge views, all the time.
    Spammer,
    /// Frames with flipped bits.
    Garbler,
    /// No blocks to whoever joins: fed, as a page or as a state.
    SilentFeeder,
    /// Other blocks to whoever joins, or proved by another certificate.
    FalseFeeder,
}

impl Lie {
    /// All, with the name of the counter that says it happened.
    pub const ALL: [(&'static str, Self); 18] = [
        ("lie: silent", Self::Silent),
        ("lie: slow", Self::Slow),
        ("lie: small change", Self::Disrupter),
        ("lie: any change", Self::Wild),
        ("lie: two blocks proposed", Self::Equivocator),
        ("lie: hidden certificate", Self::Forgetful),
        ("lie: two new views", Self::TwoNewViews),
        ("lie: withheld or altered value", Self::Withholder),
        ("lie: censored bundle", Self::Censor),
        ("lie: bad clock", Self::BadClock),
        ("lie: read answer", Self::ReadLiar),
        ("lie: height", Self::Boaster),
        ("lie: replay", Self::Replayer),
        ("lie: certificate on another block", Self::Swapper),
        ("lie: huge view", Self::Spammer),
        ("lie: garbled frame", Self::Garbler),
        ("lie: blocks kept back", Self::SilentFeeder),
        ("lie: other blocks fed", Self::FalseFeeder),
    ];

    /// How many of them any plan may have: the others need somebody who joins.
    pub const ANYWHERE: usize = 16;

    /// Its counter.
    #[must_use]
    pub fn counter(self) -> &'static str {
        Self::ALL.iter().find(|(_, lie)| *lie == self).map_or("lie", |(name, _)| name)
    }
}

/// How late a slow liar is: below the request timer and the primary's idle limit.
const SLOW: Micros = 800 * MILLI;
/// Frames a replayer keeps.
const KEPT_MAX: usize = 200;

/// One frame on its way to one peer.
pub struct Frame {
    /// What is sent.
    pub bytes: Bytes,
    /// So much later than it would have been.
    pub late: Micros,
}

/// A lying replica: outlives its processes.
pub struct Liar {
    /// What it does.
    pub lie: Lie,
    id: ReplicaId,
    cluster_id: ClusterId,
    scheme: Arc<dyn Scheme>,
    /// Whom it does it to.
    victims: BTreeSet<ReplicaId>,
    /// Who joins has this id or a higher one.
    joiners: ReplicaId,
    random: Random,
    kept: Vec<Bytes>,
    /// Digests it has seen, to name the wrong one.
    digests: Vec<Digest>,
}

impl Liar {
    /// One that lies to a random part of `n` replicas: to all, to half or to one.
    #[must_use]
    pub fn new(
        lie: Lie,
        id: ReplicaId,
        n: usize,
        signs: (ClusterId, Arc<dyn Scheme>),
        mut random: Random,
    ) -> Self {
        let joiners = ReplicaId(u16::try_from(n).expect("few"));
        let others = (0..joiners.0).map(ReplicaId).filter(|other| *other != id);
        let mut victims: BTreeSet<ReplicaId> = others.collect();
        let keep = match random.below(3) {
            0 => victims.len(),
            1 => victims.len().div_ceil(2),
            _ => 1,
        };
        while victims.len() > keep {
            let at = random.index(victims.len());
            let one = *victims.iter().nth(at).expect("in range");
            victims.remove(&one);
        }
        let (cluster_id, scheme) = signs;
        let (kept, digests) = (Vec::new(), Vec::new());
        Self { lie, id, cluster_id, scheme, victims, joiners, random, kept, digests }
    }

    /// Whether it hears a message at all.
    #[must_use]
    pub fn hears(&self, message: &Message) -> bool {
        match message {
            Message::Bundle(bundle) if self.lie == Lie::Censor => {
                !self.victims.contains(&bundle.origin) || self.victims.len() > 1
            }
            _ => true,
        }
    }

    /// Whether its wall clock is another than the true one.
    #[must_use]
    pub fn misreads_clock(&self) -> bool {
        self.lie == Lie::BadClock
    }

    /// Its wall clock, when the true one says `now_ms`.
    #[must_use]
    pub fn clock(&self, now_ms: u64) -> u64 {
        match self.lie {
            Lie::BadClock if self.victims.len() == 1 => 1_790_000_000_000,
            Lie::BadClock => now_ms + 400 + 3_600_000 * (self.victims.len() as u64 % 2),
            _ => now_ms,
        }
    }

    /// What `peer` gets instead of a message, and whether that was a lie.
    pub fn tell(&mut self, peer: ReplicaId, message: &Message) -> (Vec<Frame>, bool) {
        let honest = || vec![Frame { bytes: message.to_bytes(), late: 0 }];
        self.learn(message);
        let feeds = matches!(self.lie, Lie::SilentFeeder | Lie::FalseFeeder);
        let spared = if feeds { peer < self.joiners } else { !self.victims.contains(&peer) };
        if spared {
            return (honest(), false);
        }
        match self.lie {
            Lie::Silent => (Vec::new(), true),
            Lie::Slow => (vec![Frame { bytes: message.to_bytes(), late: SLOW }], true),
            Lie::Garbler => self.garble(message),
            Lie::Replayer => self.replay(message),
            _ => match self.bend(message) {
                Some(other) => {
                    let frame = |message: Message| Frame { bytes: message.to_bytes(), late: 0 };
                    (other.into_iter().map(frame).collect(), true)
                }
                None => (honest(), false),
            },
        }
    }

    fn learn(&mut self, message: &Message) {
        if let Message::PrePrepare { block, .. } = message
            && self.digests.len() < KEPT_MAX
        {
            self.digests.push(block.hash());
        }
    }

    fn garble(&mut self, message: &Message) -> (Vec<Frame>, bool) {
        let mut bytes = message.to_bytes().to_vec();
        let lies = self.random.chance(200);
        if lies {
            for _ in 0..self.random.between(1, 4) {
                let at = self.random.index(bytes.len());
                bytes[at] ^= 1 << self.random.below(8);
            }
        }
        (vec![Frame { bytes: bytes.into(), late: 0 }], lies)
    }

    fn replay(&mut self, message: &Message) -> (Vec<Frame>, bool) {
        let bytes = message.to_bytes();
        let mut frames = vec![Frame { bytes: bytes.clone(), late: 0 }];
        if self.kept.len() < KEPT_MAX {
            self.kept.push(bytes);
        } else {
            let at = self.random.index(KEPT_MAX);
            if self.random.chance(100) {
                self.kept[at] = bytes;
            }
        }
        let lies = self.random.chance(300);
        if lies {
            let old = self.random.pick(&self.kept).clone();
            frames.push(Frame { bytes: old, late: 0 });
        }
        (frames, lies)
    }

    /// None leaves the message as it is.
    fn bend(&mut self, message: &Message) -> Option<Vec<Message>> {
        let one = |message| Some(vec![message]);
        match (self.lie, message) {
            (Lie::Disrupter | Lie::Wild, _) if self.random.chance(250) => self.disrupt(message),
            (Lie::Equivocator, Message::PrePrepare { block, .. }) => {
                let mut header = block.header.clone();
                header.time_ms = header.time_ms.next();
                one(self.propose(rebuild(block, header)))
            }
            (Lie::Forgetful, Message::ViewChange(view_change))
                if view_change.replica == self.id =>
            {
                let view_change = Arc::new(self.forget(view_change));
                one(Message::ViewChange(view_change))
            }
            (Lie::Forgetful | Lie::TwoNewViews, Message::NewView(new_view)) => {
                let mut all = new_view.view_changes.clone();
                for view_change in &mut all {
                    if view_change.replica == self.id {
                        *view_change = Arc::new(self.forget(view_change));
                    } else if self.random.chance(200) {
                        // Not signed so: it must be refused.
                        let bare = ViewChange { prepared: None, ..view_change.as_ref().clone() };
                        *view_change = Arc::new(bare);
                    }
                }
                let round = (new_view.epoch, new_view.view);
                let scheme = self.scheme.as_ref();
                one(Message::NewView(Arc::new(NewView::sign(round, all, &self.cluster_id, scheme))))
            }
            (Lie::Withholder, Message::PrePrepare { block, prepare }) => {
                let block = Arc::new(self.spoil(block));
                one(Message::PrePrepare { block, prepare: prepare.clone() })
            }
            (Lie::ReadLiar, Message::ReadAnswer(answer)) => {
                let mut answer = *answer;
                answer.mark = Height(if self.random.chance(500) { 0 } else { 1 << 62 });
                one(Message::ReadAnswer(answer))
            }
            (Lie::Boaster, Message::Status(status)) => {
                let mut status = *status;
                status.committed = Height(1 << 62);
                status.executed = Height(1 << 62);
                if self.random.chance(300) {
                    status.view = View(1 << 62);
                }
                one(Message::Status(status))
            }
            (Lie::Swapper, Message::Certificate(certificate)) => {
                one(Message::Certificate(self.swap(certificate)))
            }
            (Lie::Swapper, Message::Blocks { blocks, certificate }) => {
                let certificate = self.swap(certificate);
                one(Message::Blocks { blocks: blocks.clone(), certificate })
            }
            (Lie::SilentFeeder, Message::Blocks { .. } | Message::Chunk { .. }) => Some(Vec::new()),
            (Lie::FalseFeeder, Message::Blocks { blocks, certificate }) => {
                let (mut blocks, mut certificate) = (blocks.clone(), certificate.clone());
                match self.random.below(4) {
                    0 => certificate = self.swap(&certificate),
                    1 => drop(blocks.pop()),
                    2 => blocks.reverse(),
                    _ => {
                        let at = self.random.index(blocks.len());
                        blocks[at] = Arc::new(self.spoil(&blocks[at]));
                    }
                }
                one(Message::Blocks { blocks, certificate })
            }
            (Lie::Spammer, Message::Status(status)) => {
                let view = View(status.view.0 + 1 + self.random.below(1 << 40));
                let spam = self.ask((status.epoch, view), (None, None));
                Some(vec![message.clone(), Message::ViewChange(Arc::new(spam))])
            }
            _ => None,
        }
    }

    fn ask(
        &self,
        round: (Epoch, View),
        (prepared, committed): (Option<Certificate>, Option<Certificate>),
    ) -> ViewChange {
        let shown = (prepared, committed, None);
        ViewChange::sign(round, self.id, shown, &self.cluster_id, self.scheme.as_ref())
    }

    fn forget(&mut self, view_change: &ViewChange) -> ViewChange {
        let committed = view_change.committed.clone().filter(|_| self.random.chance(500));
        self.ask((view_change.epoch, view_change.view), (None, committed))
    }

    fn vote(&self, round: (Phase, Epoch, View), range: (Height, Vec<Digest>)) -> Vote {
        Vote::sign(round, self.id, range, &self.cluster_id, self.scheme.as_ref())
    }

    fn propose(&self, block: Block) -> Message {
        let header = &block.header;
        let round = (Phase::Prepare, header.epoch, header.view);
        let prepare = self.vote(round, (header.height, vec![block.hash()]));
        Message::PrePrepare { block: Arc::new(block), prepare }
    }

    /// Without values, or with one that does not match its commitment.
    fn spoil(&mut self, block: &Arc<Block>) -> Block {
        let mut entries = block.entries.clone();
        let value = entries.iter_mut().find_map(|entry| match entry {
            Entry::Bundle(bundle) => bundle.values.first_mut(),
            Entry::Rejoin(_) => None,
        });
        match value {
            Some(value) if self.random.chance(500) => {
                value.salt[0] ^= 1;
                BlockParts::new(entries).into_block(block.header.clone())
            }
            _ => block.without_values(),
        }
    }

    fn swap(&mut self, certificate: &Certificate) -> Certificate {
        let mut other = certificate.clone();
        match self.random.below(4) {
            0 => other.height = other.height.next(),
            1 => other.block_hash = self.digest(other.block_hash),
            2 => drop(other.signatures.pop()),
            _ => other.view = other.view.next(),
        }
        other
    }

    fn digest(&mut self, otherwise: Digest) -> Digest {
        if self.digests.is_empty() {
            return otherwise;
        }
        *self.random.pick(&self.digests)
    }

    /// One more, one less, or with [`Lie::Wild`] anything.
    fn shift(&mut self, number: u64) -> u64 {
        match self.random.below(if self.lie == Lie::Wild { 4 } else { 2 }) {
            0 => number.saturating_add(1),
            1 => number.saturating_sub(1),
            2 => self.random.draw() >> self.random.below(64),
            _ => 0,
        }
    }

    fn disrupt(&mut self, message: &Message) -> Option<Vec<Message>> {
        let one = |message| Some(vec![message]);
        match message {
            Message::Votes(votes) if self.random.chance(200) => {
                one(Message::Votes(votes[..votes.len() - 1].to_vec()))
            }
            Message::Votes(votes) => {
                one(Message::Votes(votes.iter().map(|vote| self.other_vote(vote)).collect()))
            }
            Message::PrePrepare { block, .. } => {
                let header = self.other_header(block);
                one(self.propose(rebuild(block, header)))
            }
            Message::ViewChange(view_change) if view_change.replica == self.id => {
                let view = View(self.shift(view_change.view.0));
                let certificates = (view_change.prepared.clone(), view_change.committed.clone());
                one(Message::ViewChange(Arc::new(
                    self.ask((view_change.epoch, view), certificates),
                )))
            }
            Message::Certificate(certificate) => one(Message::Certificate(self.swap(certificate))),
            Message::Status(status) => {
                let mut status = *status;
                match self.random.below(4) {
                    0 => status.view = View(self.shift(status.view.0)),
                    1 => status.committed = Height(self.shift(status.committed.0)),
                    2 => status.unix_ms = Millis(self.shift(status.unix_ms.0)),
                    _ => status.epoch = Epoch(self.shift(status.epoch.0)),
                }
                one(Message::Status(status))
            }
            Message::ReadAnswer(answer) => {
                let mut answer = *answer;
                answer.mark = Height(self.shift(answer.mark.0));
                one(Message::ReadAnswer(answer))
            }
            Message::Blocks { blocks, certificate } => {
                let mut blocks = blocks.clone();
                match self.random.below(3) {
                    0 => drop(blocks.pop()),
                    1 => blocks.reverse(),
                    _ => blocks.truncate(1),
                }
                one(Message::Blocks { blocks, certificate: certificate.clone() })
            }
            _ => None,
        }
    }

    fn other_vote(&mut self, vote: &Vote) -> Vote {
        let (mut round, mut range) = (
            (vote.phase, vote.epoch, vote.view),
            (vote.signed.from_height, vote.signed.hashes.clone()),
        );
        match self.random.below(6) {
            0 => round.2 = View(self.shift(vote.view.0)),
            1 => range.0 = Height(self.shift(range.0.0).clamp(1, 1 << 62)),
            2 => round.1 = Epoch(self.shift(vote.epoch.0)),
            3 => range.1[0] = self.digest(range.1[0]),
            4 => {
                // Under another's name: not signed by that one.
                let mut vote = vote.clone();
                vote.signed.replica = ReplicaId(vote.signed.replica.0 ^ 1);
                return vote;
            }
            _ => {
                let other =
                    if vote.phase == Phase::Prepare { Phase::Commit } else { Phase::Prepare };
                round.0 = other;
            }
        }
        self.vote(round, range)
    }

    fn other_header(&mut self, block: &Block) -> althing::chain::BlockHeader {
        let mut header = block.header.clone();
        match self.random.below(7) {
            0 => header.time_ms = Millis(self.shift(header.time_ms.0)),
            1 => header.height = Height(self.shift(header.height.0).max(1)),
            2 => header.view = View(self.shift(header.view.0)),
            3 => header.parent = self.digest(header.parent),
            4 => header.exec_root = self.digest(header.exec_root),
            5 => header.exec_height = Height(self.shift(header.exec_height.0)),
            _ => header.flags ^= 1,
        }
        header
    }
}

fn rebuild(block: &Block, header: althing::chain::BlockHeader) -> Block {
    BlockParts::new(block.entries.clone()).into_block(header)
}
