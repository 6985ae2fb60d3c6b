/// The keys `[start, end)` that an etcd `key` and `range_end` name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span<'a> {
    /// One key.
    One(&'a [u8]),
    /// From the first up to, not including, the second.
    Until(&'a [u8], &'a [u8]),
    /// From a key on.
    From(&'a [u8]),
}

impl<'a> Span<'a> {
    /// An empty `range_end` names one key, `\0` all keys from `key` on (txn/delete.go, mkGteRange).
    #[must_use]
    pub fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Self::One(key),
            [0] => Self::From(key),
            end => Self::Until(key, end),
        }
    }

    /// The first key it may hold.
    #[must_use]
    pub fn start(&self) -> &'a [u8] {
        match self {
            Self::One(key) | Self::Until(key, _) | Self::From(key) => key,
        }
    }

    /// Whether a key at or above [`Span::start`] lies behind its end.
    #[must_use]
    pub fn ends_before(&self, key: &[u8]) -> bool {
        match self {
            Self::One(only) => key > *only,
            Self::Until(_, end) => key >= *end,
            Self::From(_) => false,
        }
    }

    /// Whether the key lies in it.
    #[must_use]
    pub fn holds(&self, key: &[u8]) -> bool {
        key >= self.start() && !self.ends_before(key)
    }
}
