//! Programs the tests start: where they are, how they are started, that they end.
//!
//! A missing program is a named skip, never a silent pass: `./test` counts skips as failures unless
//! it was told to do without peers.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The build with feature `planted`, which lies beside the ordinary one.
pub const PLANTED: &str = "planted-althing";

/// What the tests use of the operating system.
const OF_THE_SYSTEM: [&str; 3] = ["strace", "unshare", "nsenter"];

/// Where a program is, or `None` when nobody has built it. `althing` comes from `ALTHING_BIN` or the
/// target directory this test was built into, and [`PLANTED`] from beside it; what the system brings
/// from `PATH`; everything else from `ALTHING_PEERS_BIN` (directories joined by `:`).
pub fn find(program: &str) -> Option<PathBuf> {
    if program == "althing" {
        let built = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("althing"));
        return std::env::var_os("ALTHING_BIN")
            .map(PathBuf::from)
            .or_else(built)
            .filter(|path| path.is_file());
    }
    if program == PLANTED {
        return Some(find("althing")?.with_file_name(PLANTED)).filter(|path| path.is_file());
    }
    let variable = if OF_THE_SYSTEM.contains(&program) { "PATH" } else { "ALTHING_PEERS_BIN" };
    let directories = std::env::var_os(variable)?;
    std::env::split_paths(&directories).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Whether all `programs` are there. If not, records that `test` was skipped and for want of what.
pub fn available(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|p| find(p).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    skip(test, &missing.join(", "));
    false
}

/// Records that `test` was skipped because what it `needs` is not there.
pub fn skip(test: &str, needs: &str) {
    let line = format!("{test}: needs {needs}\n");
    eprint!("SKIPPED {line}");
    if let Some(path) = std::env::var_os("ALTHING_SKIPS") {
        let mut file = File::options().append(true).create(true).open(path).expect("skip list");
        file.write_all(line.as_bytes()).expect("skip list");
    }
}

/// A command for a program that [`available`] has found.
pub fn command(program: &str) -> Command {
    let path = find(program).unwrap_or_else(|| panic!("{program} was not looked for first"));
    let mut command = Command::new(path);
    // etcd's tools read ETCDCTL_* and ETCD_*; nothing of the caller's may change a test.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("ETCD") || name.starts_with("ALTHING_") || name.starts_with("KUBE") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A TCP port nobody listens on, from 21000 to 22999: below the range the kernel hands out for
/// outgoing connections. Each test process starts elsewhere in it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 40) as u16 * 50;
    for _ in 0..2000 {
        // Servers end, so a port comes round again.
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % 2000;
        let port = 21000 + (start + offset) % 2000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from 21000 to 22999");
}

/// A running program whose output goes to a file. Dropping it ends it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; stdout and stderr are appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Process {
        let file = File::options().append(true).create(true).open(log).expect("log file");
        let copy = file.try_clone().expect("log file handle");
        let child = command.stdout(file).stderr(copy).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Process { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines it printed, for a failure message.
    pub fn last_output(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("state of a child")
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("end of a killed child");
    }

    /// SIGTERM, and waits up to `patience` for the end.
    pub fn terminate(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, signal).unwrap_or_else(|e| panic!("signal to {}: {e}", self.name));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.terminate(Duration::from_secs(5)).is_none() {
            self.kill();
        }
    }
}

/// After this a test hangs. It is no measure of speed: a loaded machine may take minutes for what takes seconds.
const HANGS: Duration = Duration::from_secs(600);

/// Asks `done` every 50 ms until it says yes; panics with `what` when that hangs.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + HANGS;
    while !done() {
        assert!(Instant::now() < deadline, "not within {HANGS:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
