//! What an owner decides, checked once: etcd's flags, environment and file become one [`Settings`];
//! a genesis file becomes a [`crate::chain::Genesis`]; a home directory becomes keys.
//!
//! Nothing here opens a socket, starts a thread or looks into the data directory.

mod auth;
mod ceremony;
mod client_tls;
mod duration;
mod file;
mod files;
mod flag_table;
mod flags;
#[cfg(test)]
mod flags_doc;
mod genesis_error;
mod genesis_file;
mod home;
mod log;
mod one_owner;
mod peer_tls;
mod settings;
mod urls;
mod voted_flags;

pub use auth::{AuthSettings, TokenSettings};
pub use ceremony::{PublicFile, SignatureFile, assemble};
pub use client_tls::ClientTls;
pub use files::{FileError, create_new, make_private_directory, replace};
pub use flag_table::{FLAGS, Flag, Kind, Scope, Section, flag};
pub use flags::{FlagError, Given, Source, Values, help};
pub use genesis_error::GenesisError;
pub use genesis_file::{GenesisFile, to_hex, valid_name};
pub use home::{Home, KeyError, SecretSeed};
pub use log::{LogOutput, LogRotation, LogSettings};
pub use one_owner::{hello, initial_cluster, one_owner};
pub use peer_tls::PeerTls;
pub use settings::{
    AutoCompaction, Bootstrap, ClientSettings, PeerSettings, Settings, SettingsError,
};
pub use urls::{ListenUrl, UrlError};
pub use voted_flags::{voted, voted_differences};
