use core::fmt;

use crate::chain::check::BundleError;

/// Why a request got no reply. The outcome of a write is then unknown, as in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeError {
    /// No quorum in normal mode of one view is in sight.
    NoLeader,
    /// The request was not executed in time.
    Timeout,
    /// The view changed while it waited, and it was not executed in time.
    TimeoutLeaderFail,
    /// This replica stops.
    Stopped,
    /// Too many requests wait already; this one was not admitted.
    TooManyRequests,
    /// The request is above `request_bytes_max`.
    TooLarge,
    /// This replica's state is not the network's: it serves no key.
    Corrupt,
    /// No bundle of this epoch may hold the request; it was not admitted.
    Refused(BundleError),
}

/// Why a change of members or parameters was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// Ordered and refused; says why and what to do.
    Refused(String),
    /// Not ordered, or not known to be.
    Node(NodeError),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLeader => "no quorum of replicas is in sight",
            Self::Timeout => "the request was not executed in time",
            Self::TimeoutLeaderFail => "the view changed and the request was not executed in time",
            Self::Stopped => "this replica stops",
            Self::TooManyRequests => "too many requests are waiting",
            Self::TooLarge => "the request is larger than request_bytes_max",
            Self::Corrupt => "this replica is quarantined; run `althing replica repair`",
            Self::Refused(why) => return write!(f, "the request was not admitted: {why}"),
        })
    }
}

impl std::error::Error for NodeError {}

/// Why a replica does not start. Every message names the file or setting and what to do.
#[derive(Debug)]
pub enum StartError {
    /// The data directory cannot be used.
    Data(String),
    /// The log or a checkpoint cannot be read.
    Recovery(String),
    /// The network cannot be set up.
    Network(String),
    /// The operating system refused a thread or a runtime.
    System(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(why) | Self::Recovery(why) | Self::Network(why) | Self::System(why) => {
                f.write_str(why)
            }
        }
    }
}

impl std::error::Error for StartError {}
