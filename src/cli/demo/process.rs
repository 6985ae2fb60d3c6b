//! Replicas as processes: started, known again by pid and start time, ended.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::config::Home;

/// A process that is told apart from a later one of the same number by when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Process {
    pub pid: u32,
    /// Clock ticks from boot to its start, as the system tells; 0 where it does not.
    pub started: u64,
}

impl Process {
    pub fn of_pid(pid: u32) -> Self {
        let started = start_time(pid).map_or(0, |(_, started)| started);
        Self { pid, started }
    }

    pub fn current() -> Self {
        Self::of_pid(std::process::id())
    }

    /// Whether it still runs. One that ended and was not waited for does not, once its last thread
    /// is gone: until then it holds its ports.
    pub fn runs(&self) -> bool {
        start_time(self.pid).is_some_and(|(state, started)| {
            let ended = state == 'X' || (state == 'Z' && threads(self.pid) <= 1);
            !ended && started == self.started
        })
    }

    /// Sends a signal, but never to another process that took its number.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (Some(pid), true) = (pid, self.runs()) {
            // It may end between the question and the signal; then there is nothing to do.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until it has ended; false if it has not within `patience`.
    pub fn wait_until_ended(&self, patience: Duration) -> bool {
        let pause = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while self.runs() {
            if waited >= patience {
                return false;
            }
            std::thread::sleep(pause);
            waited += pause;
        }
        true
    }
}

/// State letter and start time from /proc/PID/stat; the name in it may contain anything, so it is
/// read from its last parenthesis on.
fn start_time(pid: u32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    // Field 22; the state was field 3.
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Where a replica's output goes.
pub(super) fn log_path(home: &Path, name: &str) -> PathBuf {
    home.join(name).join("log")
}

/// Starts an organisation's replica as its own process group, so that a Ctrl-C at the terminal
/// reaches it only through the demo.
pub(super) fn spawn(home: &Path, name: &str) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let path = log_path(home, name);
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let log = log.with_context(|| path.display().to_string())?;
    let organisation = Home::at(home.join(name));
    let mut command = Command::new(&program);
    command.arg("serve").arg("--genesis").arg(organisation.genesis());
    command.arg("--home").arg(organisation.directory());
    command.arg("--data-dir").arg(organisation.file("data"));
    command.arg("--log-format=console");
    for (variable, _) in std::env::vars_os() {
        // The surrounding etcd's settings are not the demo's.
        let name = variable.to_string_lossy();
        if name.starts_with("ETCD_") || name.starts_with("ALTHING_") {
            command.env_remove(&variable);
        }
    }
    let errors = log.try_clone().context("cannot share the log")?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// The end of a replica's output.
pub(super) fn last_lines(home: &Path, name: &str) -> String {
    let text = std::fs::read(log_path(home, name)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
