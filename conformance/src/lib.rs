//! What checks Althing from outside: a simulator, checkers, real peers.

// The simulator compiles the node's own replay (`sim::node_recover`), whose paths start here.
#[allow(unused_imports, reason = "found by `crate::` paths of a file that this crate borrows")]
use althing::{apply, chain, ordering, planted, state, storage, types};

pub mod bank;
pub mod core_search;
pub mod differences;
pub mod protocol_model;
pub mod scenarios;
pub mod sim;
pub mod targets;
#[cfg(feature = "server")]
pub mod ceremony;
#[cfg(feature = "server")]
pub mod certificates;
#[cfg(feature = "server")]
pub mod client;
#[cfg(feature = "server")]
pub mod cluster;
#[cfg(feature = "server")]
pub mod etcd_cluster;
#[cfg(feature = "server")]
pub mod flood;
#[cfg(feature = "server")]
pub mod founded;
#[cfg(feature = "server")]
pub mod kube;
#[cfg(feature = "server")]
pub mod network;
#[cfg(feature = "server")]
pub mod peers;
#[cfg(feature = "server")]
pub mod proxy;
