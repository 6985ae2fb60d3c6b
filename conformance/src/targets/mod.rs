//! Fuzz targets (faults.md 4.5): one function each, that panics when something is wrong. `conformance/fuzz`
//! drives them by coverage, the property tests by chance.

mod certificate;
mod chain;
mod naive;
mod rights;
#[cfg(feature = "server")]
mod services;
mod storage;
mod transactions;
#[cfg(feature = "server")]
mod surface;

use althing::codec::{Decode, Encode};
use althing::ordering::Message;
use bytes::Bytes;

pub use certificate::cert_verify;
pub use rights::rbac_diff;
#[cfg(feature = "server")]
pub use services::grpc_to_handler;
pub use storage::{checkpoint_install, log_open, log_torn, transfer_session};
#[cfg(feature = "server")]
pub use surface::{auth_token_parse, config_parse};
pub use transactions::txn_apply_diff;

use crate::core_search::bench::Bench;
use crate::sim::checkers::model::names;

/// A target.
pub type Target = fn(&[u8]);

/// Every target with its name.
pub const TARGETS: &[(&str, Target)] = &[
    #[cfg(feature = "server")]
    ("peer_frame_decode", peer_frame_decode),
    #[cfg(feature = "server")]
    ("config_parse", config_parse),
    #[cfg(feature = "server")]
    ("auth_token_parse", auth_token_parse),
    #[cfg(feature = "server")]
    ("grpc_to_handler", grpc_to_handler),
    ("range_normalise", range_normalise),
    ("consensus_msg_roundtrip", consensus_msg_roundtrip),
    ("core_step", core_step),
    ("cert_verify", cert_verify),
    ("log_open", log_open),
    ("log_torn", log_torn),
    ("checkpoint_install", checkpoint_install),
    ("transfer_session", transfer_session),
    ("txn_apply_diff", txn_apply_diff),
    ("rbac_diff", rbac_diff),
];

/// Bytes read as a row of decisions; zeros when they are used up.
pub struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    /// The decisions in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all are used up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// Two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// `count` bytes, or what is left.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// One of them, by a byte.
    ///
    /// # Panics
    /// There is none.
    pub fn among<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    /// One of them, by two bytes.
    pub fn pick<'b, T>(&mut self, of: &'b [T]) -> Option<&'b T> {
        of.get(usize::from(self.short()).checked_rem(of.len())?)
    }
}

/// Whatever a peer's bytes are, and however they are split: frames within their limits, or an error.
#[cfg(feature = "server")]
pub fn peer_frame_decode(data: &[u8]) {
    use althing::net::{FrameLimits, frames_in};

    let limits = FrameLimits { control_bytes: 1 << 10, bulk_bytes: 200 << 10 };
    let mut choices = Choices::new(data);
    let step = usize::from(choices.short()).max(1);
    let bytes = choices.rest;
    let frames = frames_in(limits, bytes, step);
    if let Ok(frames) = &frames {
        let longest = limits.control_bytes.max(limits.bulk_bytes);
        assert!(frames.iter().all(|frame| !frame.is_empty() && frame.len() <= longest));
        assert!(frames.iter().map(Bytes::len).sum::<usize>() <= bytes.len());
    }
    assert_eq!(frames, frames_in(limits, bytes, usize::MAX), "the split makes no difference");
}

/// One key, `[a, b)` or all from a key: etcd's three kinds of range, decided once, before any permission
/// is asked about them.
pub fn range_normalise(data: &[u8]) {
    use althing::state::Span;

    let mut choices = Choices::new(data);
    let mut key = || {
        let length = usize::from(choices.byte() % 4);
        choices.bytes(length)
    };
    let (start, end) = (key(), key());
    let span = Span::new(start, end);
    assert_eq!(span.start(), start);
    let mut keys: Vec<&[u8]> = vec![start, end, b"", b"\0"];
    keys.extend((0..8).map(|_| key()));
    keys.sort_unstable();
    let mut behind = false;
    for key in keys {
        assert_eq!(span.holds(key), names((start, end), key), "{key:?} in {start:?} {end:?}");
        if key >= start {
            assert!(!behind || span.ends_before(key), "nothing lies behind the end but more of it");
            behind = span.ends_before(key);
        }
    }
}

/// What decodes encodes to the same bytes again.
pub fn consensus_msg_roundtrip(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(message) = Message::from_bytes(bytes.clone()) {
        assert_eq!(message.to_bytes(), bytes, "one encoding for each message: {message:?}");
    }
}

/// Whatever one of four says and whenever anything arrives: no panic, no vote twice, no fork, no honest
/// one accused or stopped, and once the network heals everything is ordered.
pub fn core_step(data: &[u8]) {
    if let Err(what) = Bench::disturbed(&mut Choices::new(data)) {
        panic!("{what}");
    }
}
