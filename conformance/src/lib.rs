//! What checks Althing from outside: a simulator, checkers, real peers.

pub mod sim;
#[cfg(feature = "server")]
pub mod client;
#[cfg(feature = "server")]
pub mod cluster;
#[cfg(feature = "server")]
pub mod etcd_cluster;
#[cfg(feature = "server")]
pub mod kube;
#[cfg(feature = "server")]
pub mod network;
#[cfg(feature = "server")]
pub mod peers;
