//! `althing demo`: four organisations as four processes on this machine, with mutual TLS.

mod control;
mod lie;
mod network;
mod process;
mod state;
mod table;

use std::path::{Path, PathBuf};

use super::http::Endpoint;
use super::output::Failure;
use crate::config::Home;

/// A network on this machine.
#[derive(clap::Args)]
pub(super) struct Demo {
    #[command(subcommand)]
    command: Option<Command>,
    /// Keys and data; delete it to reset.
    #[arg(long, default_value = "./althing-demo", global = true)]
    home: PathBuf,
    /// Return once all replicas are ready, instead of staying until Ctrl-C.
    #[arg(long)]
    detach: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print shell lines that point etcdctl at one organisation's replica.
    Env {
        /// acme, birch, cedar or delta.
        name: String,
    },
    /// Show every replica's process and state.
    Status,
    /// End one replica as a crash would: SIGKILL.
    Stop {
        /// acme, birch, cedar or delta.
        name: String,
    },
    /// Start a stopped replica.
    Start {
        /// acme, birch, cedar or delta.
        name: String,
    },
    /// Cut one replica off from the others; it keeps running.
    Cut {
        /// acme, birch, cedar or delta.
        name: String,
    },
    /// Reconnect all replicas, or one.
    Heal {
        /// acme, birch, cedar or delta; all if absent.
        name: Option<String>,
    },
    /// Make one replica contradict itself, and show the others' proof of it.
    Lie {
        /// acme, birch, cedar or delta.
        name: String,
    },
    /// End all replicas; keys and data stay.
    Down,
}

pub(super) fn run(demo: Demo) -> Result<(), Failure> {
    let home = std::path::absolute(&demo.home)?;
    match demo.command {
        None => control::up(&home, &demo.home, demo.detach),
        Some(Command::Env { name }) => control::env(&home, &name),
        Some(Command::Status) => control::status(&home),
        Some(Command::Stop { name }) => control::stop(&home, &name),
        Some(Command::Start { name }) => control::start(&home, &name),
        Some(Command::Cut { name }) => control::cut(&home, Some(&name), "cut"),
        Some(Command::Heal { name }) => control::cut(&home, name.as_deref(), "heal"),
        Some(Command::Lie { name }) => lie::run(&home, &demo.home, &name),
        Some(Command::Down) => control::down(&home),
    }
}

/// An organisation's name, where it is known, and the way to its replica.
pub(super) type Named = (Option<String>, Endpoint);

/// Each organisation of the demo in `home`; None if there is no demo.
pub(super) fn endpoints(home: &Path) -> anyhow::Result<Option<Vec<Named>>> {
    let Some(state) = state::State::load(home)? else { return Ok(None) };
    let endpoint = |organisation: &state::Organisation| {
        let files = Home::at(home.join(&organisation.name));
        let endpoint = Endpoint::of_home(&organisation.client_url(), &files);
        (Some(organisation.name.clone()), endpoint)
    };
    Ok(Some(state.organisations.iter().map(endpoint).collect()))
}
