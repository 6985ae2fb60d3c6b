//! Althing: an etcd v3 server whose replicas belong to organisations that do not trust each other.
//!
//! Modules in the order of the layers; a module uses only what stands above it (and the table in
//! `docs/architecture.md` says which of those). The first part is pure: no clock, socket, thread,
//! lock or random source, files only through [`storage::disk::Disk`]. `--no-default-features`
//! compiles that part alone.

#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a planted bug is chosen by the environment and may use a hash map; none is in a release"
)]
pub mod planted;
pub mod types;
pub mod codec;
pub mod crypto;
pub mod chain;
pub mod ordering;
pub mod state;
pub mod apply;
pub mod verify;
pub mod watch;
pub mod storage;
#[cfg(feature = "server")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "writes log files")]
pub mod observe;
#[cfg(feature = "server")]
#[allow(clippy::disallowed_methods, reason = "reads the operator's files")]
pub mod tls;
#[cfg(feature = "server")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tasks, queues, pings")]
pub mod net;
#[cfg(feature = "server")]
#[allow(
    clippy::disallowed_methods,
    reason = "reads and writes keys, certificates and genesis files"
)]
pub mod config;
#[cfg(feature = "server")]
#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the shell's one place for time, threads and the lock around the state"
)]
pub mod node;
#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "serves on threads of its own"
)]
pub mod web;
#[cfg(feature = "server")]
#[allow(
    clippy::disallowed_methods,
    reason = "commands read files, the environment and the clock, and start processes"
)]
pub mod cli;
