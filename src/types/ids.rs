//! Newtypes: a height is never added to a view by accident.

use core::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The value after this one. A u64 counted up once per block or record does not wrap in
            /// the life of a network, so overflow is a broken invariant.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a 64-bit counter never reaches its end"))
            }

            /// This value plus `n`, stopping at the largest.
            #[must_use]
            pub fn plus(self, n: u64) -> Self {
                Self(self.0.saturating_add(n))
            }

            /// This value minus `n`, stopping at zero.
            #[must_use]
            pub fn minus(self, n: u64) -> Self {
                Self(self.0.saturating_sub(n))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// A block's place in the chain. Genesis is 0 and has no block; the first block is 1.
    Height
}
counter! {
    /// PBFT's view within an epoch, from 0.
    View
}
counter! {
    /// A fixed membership and configuration, from 0.
    Epoch
}
counter! {
    /// A record's sequence number in the write-ahead log, from 1; 0 means "nothing needed".
    LogPosition
}
counter! {
    /// Milliseconds: of Unix time, block time or the lease clock, as the field's name says.
    Millis
}

/// A replica: its position in the genesis or CONFIG that admitted it, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u16);

/// An organisation: who owns replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrgId(pub u16);

/// An etcd lease id: positive; 0 means "no lease".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// An etcd store revision. A fresh store is at 1 (etcd-surface.md 1.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a 63-bit revision never reaches its end"))
    }
}

macro_rules! plain_display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
plain_display!(ReplicaId, OrgId, LeaseId, Revision);

/// A blake3 hash, 32 bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// The hash of the genesis: which network this is.
pub type ClusterId = Digest;

impl Digest {
    /// All zeros: the parent of the first block, the root before the first execution.
    pub const ZERO: Self = Self([0; 32]);
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
