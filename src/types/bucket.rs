/// A budget per second: tokens for one second at most, earned as time passes.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    per_second: u64,
    /// In thousandths, so that a millisecond earns whole numbers.
    tokens: u64,
    filled_ms: u64,
}

impl Bucket {
    /// One that holds a second's worth.
    #[must_use]
    pub fn full(per_second: u64) -> Self {
        Self { per_second, tokens: per_second * 1000, filled_ms: 0 }
    }

    fn fill(&mut self, now_ms: u64) {
        let earned = now_ms.saturating_sub(self.filled_ms).saturating_mul(self.per_second);
        self.filled_ms = self.filled_ms.max(now_ms);
        self.tokens = self.tokens.saturating_add(earned).min(self.per_second * 1000);
    }

    /// Takes `count` if they are there at `now_ms`.
    pub fn try_take(&mut self, count: u64, now_ms: u64) -> bool {
        self.fill(now_ms);
        let enough = self.tokens >= count.saturating_mul(1000);
        if enough {
            self.take(count);
        }
        enough
    }

    /// Milliseconds from `now_ms` until `count` may be taken; more than a second's worth needs a full
    /// bucket.
    pub fn wait_ms(&mut self, count: u64, now_ms: u64) -> u64 {
        self.fill(now_ms);
        let wanted = count.min(self.per_second) * 1000;
        wanted.saturating_sub(self.tokens).div_ceil(self.per_second)
    }

    /// Takes `count`, or what is there.
    pub fn take(&mut self, count: u64) {
        self.tokens = self.tokens.saturating_sub(count.saturating_mul(1000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKS_PER_SECOND: u64 = 2000;

    #[test]
    fn an_account_refills_with_time_and_never_above_a_second_of_checks() {
        let mut account = Bucket::full(CHECKS_PER_SECOND);
        assert!(account.try_take(CHECKS_PER_SECOND, 5));
        assert!(!account.try_take(1, 5));
        assert!(account.try_take(CHECKS_PER_SECOND / 1000, 6));
        assert!(!account.try_take(1, 6));
        assert!(account.try_take(CHECKS_PER_SECOND, u64::MAX));
        assert!(!account.try_take(1, u64::MAX));
        assert!(!account.try_take(u64::MAX, u64::MAX));
    }
}
