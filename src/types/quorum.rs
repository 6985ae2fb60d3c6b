//! Quorum arithmetic (consensus.md 3).

use crate::planted::{self, Bug};

/// The sizes that follow from the number of voting replicas.
///
/// Two quorums share at least `f + 1` replicas (`2q - n >= f + 1`) and a quorum answers although
/// `f` are silent (`q <= n - f`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    n: usize,
}

impl Quorum {
    /// For `n >= 1` voting replicas.
    #[must_use]
    pub fn of(n: usize) -> Self {
        assert!(n >= 1, "a network has at least one voting replica");
        Self { n }
    }

    /// Voting replicas.
    #[must_use]
    pub fn n(self) -> usize {
        self.n
    }

    /// How many may lie: `(n - 1) / 3`.
    #[must_use]
    pub fn f(self) -> usize {
        (self.n - 1) / 3
    }

    /// Votes that decide: `(n + f + 2) / 2`.
    #[must_use]
    pub fn q(self) -> usize {
        let q = (self.n + self.f() + 2) / 2;
        if planted::is(Bug::SmallQuorum) { q.max(2) - 1 } else { q }
    }

    /// Votes among which one is correct: `f + 1`.
    #[must_use]
    pub fn weak(self) -> usize {
        self.f() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::Quorum;

    #[test]
    fn sizes_match_the_table() {
        let table = [
            (1, 0, 1),
            (2, 0, 2),
            (3, 0, 2),
            (4, 1, 3),
            (5, 1, 4),
            (6, 1, 4),
            (7, 2, 5),
            (8, 2, 6),
            (9, 2, 6),
            (10, 3, 7),
            (13, 4, 9),
            (16, 5, 11),
        ];
        for (n, f, q) in table {
            assert_eq!((Quorum::of(n).f(), Quorum::of(n).q()), (f, q), "n = {n}");
        }
    }

    #[test]
    fn two_quorums_share_a_correct_replica_and_f_silent_ones_stop_nobody() {
        for n in 1..=100 {
            let quorum = Quorum::of(n);
            assert!(2 * quorum.q() - n >= quorum.weak(), "overlap at n = {n}");
            assert!(quorum.q() <= n - quorum.f(), "liveness at n = {n}");
        }
    }
}
