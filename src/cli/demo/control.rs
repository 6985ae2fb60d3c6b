//! What the demo's commands do.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::network::{NAMES, create_network, is_free};
use super::process::{Process, last_lines, log_path, spawn};
use super::state::State;
use super::table;
use crate::cli::http::block_on;
use crate::cli::output::{Failure, say};
use crate::config::Home;

/// How long replicas have to become ready: the first start on a slow machine, two cores.
const READY: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// A replica this process started and must wait for.
struct Own {
    name: String,
    child: Child,
}

/// `althing demo`: makes or resumes the network.
pub(super) fn up(home: &Path, shown_home: &Path, detach: bool) -> Result<(), Failure> {
    let state = match State::load(home)? {
        Some(state) => state,
        None if home.exists() => {
            let why = "is there but holds no demo; give another --home, or delete it";
            return Err(anyhow::anyhow!("{} {why}", home.display()).into());
        }
        None => create_network(home)?,
    };
    if let Some(other) = state.foreground.as_ref().filter(|process| process.runs()) {
        let why = anyhow::anyhow!(
            "this demo runs already, as process {}; end it with Ctrl-C there, or `althing demo down`",
            other.pid
        );
        return Err(why.into());
    }
    let mut own = start_all(home, &state)?;
    let done = block_on(async {
        wait_until_ready(home, &mut own).await?;
        print_table(home, shown_home).await?;
        if detach {
            let program = std::env::current_exe().context("cannot find this program's file")?;
            say!("end it with: {} down", table::command(home, shown_home, &program));
            return anyhow::Ok(());
        }
        stay(home, &mut own).await
    });
    let done = done.and_then(|done| done);
    if done.is_err() || !detach {
        end_all(home, &mut own)?;
    }
    Ok(done?)
}

fn start_all(home: &Path, state: &State) -> anyhow::Result<Vec<Own>> {
    for organisation in state.organisations.iter().filter(|o| o.running().is_none()) {
        for port in [organisation.client_port, organisation.peer_port] {
            if !is_free(port) {
                bail!(
                    "port {port} of {} is taken by another program; end that, or delete {} to make a \
                     new network on other ports",
                    organisation.name,
                    home.display()
                );
            }
        }
    }
    let mut own = Vec::new();
    State::change(home, |state| {
        state.foreground = Some(Process::current());
        for organisation in &mut state.organisations {
            if organisation.running().is_none() {
                let child = spawn(home, &organisation.name)?;
                organisation.process = Some(Process::of_pid(child.id()));
                own.push(Own { name: organisation.name.clone(), child });
            }
        }
        Ok(())
    })?;
    Ok(own)
}

/// Waits for every running replica; one that ends before it is ready ends the demo.
async fn wait_until_ready(home: &Path, own: &mut [Own]) -> anyhow::Result<()> {
    let state = State::existing(home)?;
    let mut waited = Duration::ZERO;
    for organisation in &state.organisations {
        let http = table::http(home, organisation)?;
        while !table::is_ready(&http).await {
            for replica in own.iter_mut() {
                if let Some(status) = replica.child.try_wait()? {
                    let name = &replica.name;
                    bail!("{name} ended with {status}:\n{}", last_lines(home, name));
                }
            }
            let known = own.iter().any(|replica| replica.name == organisation.name);
            if !known && organisation.running().is_none() {
                let name = &organisation.name;
                bail!("{name}, which was running, has just ended; run `althing demo` again");
            }
            if waited >= READY {
                let name = &organisation.name;
                bail!(
                    "{name} is not ready after {} s; its log is {}:\n{}",
                    READY.as_secs(),
                    log_path(home, name).display(),
                    last_lines(home, name)
                );
            }
            tokio::time::sleep(PAUSE).await;
            waited += PAUSE;
        }
    }
    Ok(())
}

async fn print_table(home: &Path, shown_home: &Path) -> anyhow::Result<()> {
    let state = State::existing(home)?;
    for line in table::lines(home, &state).await? {
        say!("{line}");
    }
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    say!("{}", table::footer(home, shown_home, &program));
    Ok(())
}

/// Until Ctrl-C or SIGTERM, or until no replica is left.
async fn stay(home: &Path, own: &mut Vec<Own>) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate, mut hang_up) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    let mut pause = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hang_up.recv() => return Ok(()),
            _ = pause.tick() => {}
        }
        let mut ended = Vec::new();
        for (at, replica) in own.iter_mut().enumerate() {
            if let Some(status) = replica.child.try_wait()? {
                ended.push(at);
                say!(
                    "{} ended ({status}); `althing demo start {}` brings it back",
                    replica.name,
                    replica.name
                );
            }
        }
        ended.iter().rev().for_each(|at| drop(own.remove(*at)));
        let state = State::existing(home)?;
        if !ended.is_empty() && state.organisations.iter().all(|o| o.running().is_none()) {
            say!("no replica is left");
            return Ok(());
        }
    }
}

/// Ends every replica by its pid: SIGTERM, then SIGKILL for who does not go.
fn end_all(home: &Path, own: &mut [Own]) -> anyhow::Result<()> {
    let state = State::existing(home)?;
    let running: Vec<Process> =
        state.organisations.iter().filter_map(|o| o.running().cloned()).collect();
    running.iter().for_each(|process| process.signal(Signal::TERM));
    for process in &running {
        if !process.wait_until_ended(Duration::from_secs(10)) {
            process.signal(Signal::KILL);
            process.wait_until_ended(Duration::from_secs(5));
        }
    }
    for replica in own {
        // Only to take its exit status from the system.
        let _ = replica.child.try_wait();
    }
    State::change(home, |state| {
        state.foreground = None;
        state.organisations.iter_mut().for_each(|organisation| organisation.process = None);
        Ok(())
    })
}

/// `demo env NAME`.
pub(super) fn env(home: &Path, name: &str) -> Result<(), Failure> {
    let state = State::existing(home)?;
    let organisation = state.organisation(name)?;
    let files = Home::at(home.join(name));
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let export = |variable: &str, value: &str| say!("export {variable}={}", quoted(value));
    export("ETCDCTL_ENDPOINTS", &organisation.client_url());
    export("ETCDCTL_CACERT", &files.ca_certificate().to_string_lossy());
    export("ETCDCTL_CERT", &files.client_certificate().to_string_lossy());
    export("ETCDCTL_KEY", &files.client_key().to_string_lossy());
    export("ALTHING_HOME", &files.directory().to_string_lossy());
    let directory = program.parent().context("the program lies in no directory")?;
    say!("export PATH={}:\"$PATH\"", quoted(&directory.to_string_lossy()));
    Ok(())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `demo status`.
pub(super) fn status(home: &Path) -> Result<(), Failure> {
    let state = State::existing(home)?;
    for line in block_on(table::lines(home, &state))?? {
        say!("{line}");
    }
    Ok(())
}

/// `demo stop NAME`: as a crash.
pub(super) fn stop(home: &Path, name: &str) -> Result<(), Failure> {
    let state = State::existing(home)?;
    let Some(process) = state.organisation(name)?.running() else {
        say!("{name} is not running");
        return Ok(());
    };
    process.signal(Signal::KILL);
    if !process.wait_until_ended(Duration::from_secs(10)) {
        return Err(anyhow::anyhow!("{name} (process {}) does not end", process.pid).into());
    }
    let ended = process.clone();
    State::change(home, |state| {
        let organisation = state.organisation_mut(name)?;
        if organisation.process.as_ref() == Some(&ended) {
            organisation.process = None;
        }
        Ok(())
    })?;
    say!("{name} is stopped; `althing demo start {name}` brings it back");
    Ok(())
}

/// `demo start NAME`.
pub(super) fn start(home: &Path, name: &str) -> Result<(), Failure> {
    let child = State::change(home, |state| {
        let organisation = state.organisation_mut(name)?;
        if organisation.running().is_some() {
            return Ok(None);
        }
        let child = spawn(home, name)?;
        organisation.process = Some(Process::of_pid(child.id()));
        Ok(Some(child))
    })?;
    let Some(mut child) = child else {
        say!("{name} is running already");
        return Ok(());
    };
    let state = State::existing(home)?;
    let organisation = state.organisation(name)?;
    block_on(async {
        let http = table::http(home, organisation)?;
        let mut waited = Duration::ZERO;
        while !table::is_ready(&http).await {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status}:\n{}", last_lines(home, name));
            }
            if waited >= READY {
                // It may wait for others: with two of four down nobody is ready.
                say!("{name} runs, but is not ready after {} s", READY.as_secs());
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
            waited += PAUSE;
        }
        say!("{name} is ready");
        Ok(())
    })??;
    Ok(())
}

/// `demo cut NAME` and `demo heal [NAME]`.
pub(super) fn cut(home: &Path, name: Option<&str>, action: &str) -> Result<(), Failure> {
    let state = State::existing(home)?;
    let names: Vec<&str> = match name {
        Some(name) => vec![state.organisation(name)?.name.as_str()],
        None => NAMES.to_vec(),
    };
    let done = block_on(async {
        for name in names {
            let organisation = state.organisation(name)?;
            if organisation.running().is_none() {
                if action == "cut" {
                    bail!("{name} is not running");
                }
                continue;
            }
            let http = table::http(home, organisation)?;
            let path = format!("/althing/v1/demo/{action}");
            let answer = http.ask(Method::POST, &path, Duration::from_secs(5)).await?;
            if answer.status != 200 {
                bail!("{name} answered {}: {}", answer.status, answer.text());
            }
            let what = if action == "cut" { "is cut off" } else { "is connected" };
            say!("{name} {what}");
        }
        Ok(())
    });
    Ok(done??)
}

/// `demo down`.
pub(super) fn down(home: &Path) -> Result<(), Failure> {
    let state = State::existing(home)?;
    if let Some(process) = state.foreground.as_ref().filter(|process| process.runs()) {
        process.signal(Signal::TERM);
        process.wait_until_ended(Duration::from_secs(30));
    }
    end_all(home, &mut [])?;
    say!("all replicas have ended; keys and data stay in {}", home.display());
    Ok(())
}
