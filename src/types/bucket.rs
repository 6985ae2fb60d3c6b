/// A budget per second: tokens for one second at most, earned as time passes; owed for as long.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    per_second: u64,
    /// In thousandths, so that a millisecond earns whole numbers. Below zero: owed.
    tokens: i64,
    filled_ms: u64,
}

impl Bucket {
    /// One that holds a second's worth.
    #[must_use]
    pub fn full(per_second: u64) -> Self {
        let mut bucket = Self { per_second, tokens: 0, filled_ms: 0 };
        bucket.tokens = bucket.most();
        bucket
    }

    /// A second's worth, in thousandths.
    fn most(&self) -> i64 {
        thousandths(self.per_second)
    }

    fn fill(&mut self, now_ms: u64) {
        let earned = now_ms.saturating_sub(self.filled_ms).saturating_mul(self.per_second);
        self.filled_ms = self.filled_ms.max(now_ms);
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(earned).min(self.most());
    }

    /// Takes `count` if they are there at `now_ms`.
    pub fn try_take(&mut self, count: u64, now_ms: u64) -> bool {
        self.fill(now_ms);
        let enough = self.tokens >= thousandths(count);
        if enough {
            self.take(count);
        }
        enough
    }

    /// Milliseconds from `now_ms` until `count` may be taken; more than a second's worth needs a full
    /// bucket.
    pub fn wait_ms(&mut self, count: u64, now_ms: u64) -> u64 {
        self.fill(now_ms);
        let wanted = thousandths(count.min(self.per_second));
        let missing = wanted.saturating_sub(self.tokens);
        u64::try_from(missing).unwrap_or(0).div_ceil(self.per_second)
    }

    /// Takes `count`, or what is there.
    pub fn take(&mut self, count: u64) {
        if self.tokens > 0 {
            self.tokens = self.tokens.saturating_sub(thousandths(count)).max(0);
        }
    }

    /// Takes `count`; what is not there is owed, a second's worth at most.
    pub fn owe(&mut self, count: u64) {
        self.tokens = self.tokens.saturating_sub(thousandths(count)).max(-self.most());
    }
}

fn thousandths(count: u64) -> i64 {
    i64::try_from(count.saturating_mul(1000)).unwrap_or(i64::MAX)
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

    #[test]
    fn what_is_owed_is_waited_for_two_seconds_at_most() {
        let mut account = Bucket::full(CHECKS_PER_SECOND);
        account.owe(CHECKS_PER_SECOND);
        assert_eq!(account.wait_ms(1, 0), 1);
        account.owe(CHECKS_PER_SECOND / 2);
        account.take(5);
        assert_eq!(account.wait_ms(0, 0), 500);
        account.owe(u64::MAX);
        assert_eq!(account.wait_ms(CHECKS_PER_SECOND, 0), 2000);
        assert!(!account.try_take(1, 1000));
        assert!(account.try_take(CHECKS_PER_SECOND, 2000));
    }
}
