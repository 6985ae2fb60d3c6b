//! Links between instances: what is cut, lost, late, doubled.

use std::collections::{BTreeMap, BTreeSet};

use crate::sim::plan::{Links, MILLI, Micros};
use crate::sim::random::Random;

/// The state of all directed links.
pub struct Network {
    links: Links,
    healed: bool,
    cut: BTreeSet<(usize, usize)>,
    /// Pairs that never hear each other: a twin and those that its other half talks to.
    apart: BTreeSet<(usize, usize)>,
    last_arrival: BTreeMap<(usize, usize), Micros>,
    /// How often what happened.
    pub seen: BTreeMap<&'static str, u64>,
    random: Random,
}

impl Network {
    /// A whole network with the given faults.
    #[must_use]
    pub fn new(links: Links, random: Random) -> Self {
        let (cut, apart) = (BTreeSet::new(), BTreeSet::new());
        let (last_arrival, seen) = (BTreeMap::new(), BTreeMap::new());
        Self { links, healed: false, cut, apart, last_arrival, seen, random }
    }

    /// When a message sent now arrives; no time if it is lost, two if it is doubled.
    pub fn arrivals(&mut self, from: usize, to: usize, now: Micros) -> Vec<Micros> {
        if self.cut.contains(&(from, to)) || self.apart.contains(&(from, to)) {
            return Vec::new();
        }
        if !self.healed && self.random.chance(self.links.loss) {
            *self.seen.entry("message lost").or_default() += 1;
            return Vec::new();
        }
        let copies = if !self.healed && self.random.chance(self.links.duplicate) { 2 } else { 1 };
        if copies > 1 {
            *self.seen.entry("message doubled").or_default() += 1;
        }
        (0..copies).map(|_| self.arrival(from, to, now)).collect()
    }

    fn arrival(&mut self, from: usize, to: usize, now: Micros) -> Micros {
        let mut delay = self.random.between(self.links.delay_min, self.links.delay_max);
        if !self.healed && self.random.chance(self.links.straggle) {
            delay += self.random.below(500 * MILLI);
            *self.seen.entry("message late").or_default() += 1;
        }
        let last = self.last_arrival.entry((from, to)).or_default();
        let mut at = now + delay;
        if !self.links.reorder || self.healed {
            at = at.max(*last + 1);
            *last = at;
        }
        at
    }

    /// Cuts the network anew: between two groups, one way only, around one, or one pair.
    ///
    /// The primary's slot tells which kinds of cut have happened.
    pub fn cut_at_random(&mut self, slots: usize, primary: usize) {
        self.cut.clear();
        let side: Vec<bool> = (0..slots).map(|_| self.random.chance(500)).collect();
        let one = self.random.index(slots);
        let other = self.random.index(slots);
        let kind = self.random.below(5);
        let with_primary = side.iter().filter(|one| **one == side[primary]).count();
        let name = match kind {
            0 if with_primary == slots => "nothing cut",
            0 if 2 * with_primary > slots => "primary in the majority",
            0 => "primary in the minority",
            1 => "cut one way",
            2 if one == primary => "primary cannot send",
            3 if one == primary => "primary cannot hear",
            2 | 3 => "cut one way",
            _ => "one pair cut",
        };
        *self.seen.entry(name).or_default() += 1;
        for from in 0..slots {
            for to in 0..slots {
                let cut = match kind {
                    0 => side[from] != side[to],
                    1 => side[from] && !side[to],
                    2 => from == one,
                    3 => to == one,
                    _ => (from, to) == (one, other) || (from, to) == (other, one),
                };
                if cut && from != to {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// Whether anything is cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Joins what was cut.
    pub fn join(&mut self) {
        self.cut.clear();
    }

    /// Gives each of the others one of the two halves, or both.
    pub fn divide_twins(&mut self, halves: (usize, usize), slots: usize) {
        self.apart.clear();
        for other in (0..slots).filter(|slot| *slot != halves.0 && *slot != halves.1) {
            let not_heard = match self.random.below(3) {
                0 => halves.0,
                1 => halves.1,
                _ => continue,
            };
            self.apart.insert((not_heard, other));
            self.apart.insert((other, not_heard));
        }
    }

    /// Two groups that do not hear each other.
    pub fn part(&mut self, sides: &[bool]) {
        self.apart.clear();
        for (from, side) in sides.iter().enumerate() {
            let others = sides.iter().enumerate().filter(|(_, other)| *other != side);
            self.apart.extend(others.map(|(to, _)| (from, to)));
        }
    }

    /// Everybody hears everybody, twins too.
    pub fn unite(&mut self) {
        self.apart.clear();
    }

    /// The end of all faults, except that twins stay twins.
    pub fn heal(&mut self) {
        self.healed = true;
        self.cut.clear();
    }
}
