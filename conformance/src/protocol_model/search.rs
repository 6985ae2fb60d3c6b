//! Breadth-first search over explicit states: the first broken rule comes with a shortest trace.
//!
//! States are remembered by a 64-bit fingerprint only, so that millions fit into memory: among ten million
//! states two different ones are taken for one with probability 3 in a million. A trace is found again by
//! replaying the numbers of its steps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is searched. Successors come in a fixed order: a trace is a list of their numbers.
pub trait Model {
    /// One state; small, it is copied for every step.
    type State: Copy;
    /// One step.
    type Step;

    /// Where every run begins.
    fn initial(&self) -> Self::State;
    /// Every step possible in a state.
    fn successors(&self, state: &Self::State, into: &mut Vec<(Self::Step, Self::State)>);
    /// A step as a line of a trace.
    fn text(&self, step: &Self::Step) -> String;
    /// Equal for states that are the same.
    fn fingerprint(&self, state: &Self::State) -> u64;
    /// The rule that a state breaks.
    fn broken_rule(&self, state: &Self::State) -> Option<String>;
    /// What must happen in some state, or the search shows nothing.
    fn goals(&self) -> &[&'static str];
    /// Whether a state shows that goal.
    fn reaches(&self, goal: usize, state: &Self::State) -> bool;
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No state breaks a rule, and there are no others.
    Exhausted,
    /// No state seen breaks a rule; the search stopped at its cap.
    Capped,
    /// A rule is broken; the shortest way there.
    Broken {
        /// Which rule, and how.
        rule: String,
        /// The steps, in order.
        trace: Vec<String>,
    },
}

/// What a search saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub verdict: Verdict,
    /// Different states seen.
    pub states: usize,
    /// Steps from the start to the last state looked at.
    pub depth: usize,
    /// Per goal of the model, the depth at which it was first reached.
    pub reached: Vec<(&'static str, Option<usize>)>,
    /// How long it took.
    pub took: Duration,
}

/// States waiting in blocks of this many: a queue that never has to move what it holds.
const BLOCK: usize = 4096;

struct Queue<S> {
    blocks: VecDeque<VecDeque<S>>,
}

impl<S> Queue<S> {
    fn push(&mut self, state: S) {
        if self.blocks.back().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push_back(VecDeque::with_capacity(BLOCK));
        }
        if let Some(block) = self.blocks.back_mut() {
            block.push_back(state);
        }
    }

    fn pop(&mut self) -> Option<S> {
        let state = self.blocks.front_mut()?.pop_front();
        if self.blocks.len() > 1 && self.blocks.front().is_some_and(VecDeque::is_empty) {
            self.blocks.pop_front();
        }
        state
    }
}

/// Fingerprints seen: open addressing, 0 for an empty place.
struct Seen {
    places: Vec<u64>,
    used: usize,
}

impl Seen {
    fn new() -> Self {
        Self { places: vec![0; 1 << 16], used: 0 }
    }

    fn place(places: &mut [u64], fingerprint: u64) -> bool {
        let mask = places.len() as u64 - 1;
        let mut at = fingerprint & mask;
        loop {
            // A table is never longer than memory, so its places fit into usize.
            let place = &mut places[at as usize];
            if *place == fingerprint {
                return false;
            }
            if *place == 0 {
                *place = fingerprint;
                return true;
            }
            at = (at + 1) & mask;
        }
    }

    /// Whether the fingerprint is new.
    fn insert(&mut self, fingerprint: u64) -> bool {
        let fingerprint = fingerprint.max(1);
        if self.used * 3 > self.places.len() * 2 {
            let mut larger = vec![0; self.places.len() * 2];
            for known in self.places.iter().filter(|known| **known != 0) {
                Self::place(&mut larger, *known);
            }
            self.places = larger;
        }
        let new = Self::place(&mut self.places, fingerprint);
        self.used += usize::from(new);
        new
    }
}

/// Searches until a rule breaks, nothing is left, or `cap` states were seen.
pub fn search<M: Model>(model: &M, cap: usize) -> Report {
    let begun = Instant::now();
    let mut reached: Vec<_> = model.goals().iter().map(|goal| (*goal, None)).collect();
    let mut seen = Seen::new();
    let mut queue = Queue { blocks: VecDeque::new() };
    // Of every state but the first: its parent, and which of the parent's steps it was.
    let mut ways: Vec<(u32, u16)> = vec![(0, 0)];
    let mut steps = Vec::new();
    let (mut at, mut depth, mut level_ends) = (0_usize, 0_usize, 1_usize);
    let initial = model.initial();
    seen.insert(model.fingerprint(&initial));
    queue.push(initial);
    let mut verdict = Verdict::Exhausted;
    'all: while let Some(state) = queue.pop() {
        if at == level_ends {
            depth += 1;
            level_ends = ways.len();
        }
        steps.clear();
        model.successors(&state, &mut steps);
        for (number, (_, next)) in steps.iter().enumerate() {
            if !seen.insert(model.fingerprint(next)) {
                continue;
            }
            let parent = u32::try_from(at).expect("the cap is below 2^32");
            ways.push((parent, u16::try_from(number).expect("a state has few steps")));
            for (goal, (_, first)) in reached.iter_mut().enumerate() {
                if first.is_none() && model.reaches(goal, next) {
                    *first = Some(depth + 1);
                }
            }
            if let Some(rule) = model.broken_rule(next) {
                depth += 1;
                let trace = retrace(model, &ways);
                verdict = Verdict::Broken { rule, trace };
                break 'all;
            }
            if ways.len() >= cap {
                verdict = Verdict::Capped;
                break 'all;
            }
            queue.push(*next);
        }
        at += 1;
    }
    Report { verdict, states: ways.len(), depth, reached, took: begun.elapsed() }
}

/// The steps to the state found last.
fn retrace<M: Model>(model: &M, ways: &[(u32, u16)]) -> Vec<String> {
    let mut numbers = Vec::new();
    let mut at = ways.len() - 1;
    while at > 0 {
        let (parent, number) = ways[at];
        numbers.push(number);
        at = parent as usize;
    }
    let mut state = model.initial();
    let mut trace = Vec::new();
    for number in numbers.into_iter().rev() {
        let mut steps = Vec::new();
        model.successors(&state, &mut steps);
        let (step, next) = steps.swap_remove(usize::from(number));
        trace.push(model.text(&step));
        state = next;
    }
    trace
}
