//! Althing: an etcd v3 server whose replicas belong to organisations that do not trust each other.
//!
//! Modules in the order of the layers; a module uses only what stands above it (and the table in
//! `docs/architecture.md` says which of those). The first part is pure: no clock, socket, thread,
//! lock or random source, files only through [`storage::Disk`]. `--no-default-features` compiles
//! that part alone.

pub mod types;
pub mod codec;
pub mod crypto;
pub mod chain;
pub mod state;
pub mod apply;
pub mod verify;
