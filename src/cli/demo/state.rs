//! What a demo remembers between commands: ports and processes, in `HOME/demo.json`.

use std::path::Path;

use anyhow::{Context, bail};
use fs4::FileExt;
use serde::{Deserialize, Serialize};

use super::network::NAMES;
use super::process::Process;
use crate::config::replace;

const FILE: &str = "demo.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub version: u16,
    /// The `althing demo` that stays until Ctrl-C, if there is one.
    pub foreground: Option<Process>,
    pub organisations: Vec<Organisation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Organisation {
    pub name: String,
    pub client_port: u16,
    pub peer_port: u16,
    /// The replica, if it was started; it may have ended since.
    pub process: Option<Process>,
}

impl Organisation {
    pub fn client_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.client_port)
    }

    /// The replica's process, if it runs.
    pub fn running(&self) -> Option<&Process> {
        self.process.as_ref().filter(|process| process.runs())
    }
}

impl State {
    /// None if there is no demo in `home`.
    pub fn load(home: &Path) -> anyhow::Result<Option<Self>> {
        let path = home.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| path.display().to_string())?,
        };
        let state: Self = serde_json::from_str(&text).with_context(|| {
            format!("{} is damaged; end the replicas and delete the directory", path.display())
        })?;
        if state.version != 1 || state.organisations.len() != NAMES.len() {
            bail!("{} was written by another version of althing", path.display());
        }
        Ok(Some(state))
    }

    /// The demo in `home`, or what to do about there being none.
    pub fn existing(home: &Path) -> anyhow::Result<Self> {
        Self::load(home)?.with_context(|| {
            format!("there is no demo in {}; start one with `althing demo`", home.display())
        })
    }

    pub fn save(&self, home: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        Ok(replace(&home.join(FILE), text.as_bytes(), 0o600)?)
    }

    /// Reads, changes and writes the state while no other command does.
    pub fn change<T>(
        home: &Path,
        change: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let path = home.join(".lock");
        let lock = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let lock = lock.with_context(|| path.display().to_string())?;
        FileExt::lock(&lock).with_context(|| format!("cannot lock {}", path.display()))?;
        let mut state = Self::existing(home)?;
        let done = change(&mut state)?;
        state.save(home)?;
        Ok(done)
    }

    pub fn organisation(&self, name: &str) -> anyhow::Result<&Organisation> {
        let found = self.organisations.iter().find(|organisation| organisation.name == name);
        found.with_context(|| unknown(name))
    }

    pub fn organisation_mut(&mut self, name: &str) -> anyhow::Result<&mut Organisation> {
        let found = self.organisations.iter_mut().find(|organisation| organisation.name == name);
        found.with_context(|| unknown(name))
    }
}

fn unknown(name: &str) -> String {
    format!("there is no organisation {name:?}; the demo has {}", NAMES.join(", "))
}
