//! Disks that fail a sync, are slow, or are full (faults.md D10, D12, D14), and too little memory (D17): one
//! replica ends or waits, the others go on, and it comes back to what it promised.

use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::network::Network;
use conformance::peers::{self, Process, eventually};

use crate::damage::{put, votes};
use crate::load::Load;
use crate::{MINUTE, WARM_UP, roots_become_equal};

/// A write or flush of the log failed (docs/operating/faults.md).
const EXIT_LOG_FAILED: i32 = 70;

/// `althing` under strace, which makes its syncs go as `how` says and writes down what it did.
fn under_strace(how: &str, said: &Path) -> Command {
    let mut command = peers::command("strace");
    // -D: the tracer is the grandchild, so that the replica stays the child that is waited for.
    command.args(["-D", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-e"]);
    command.arg(format!("inject=fsync,fdatasync:{how}")).arg("-o").arg(said);
    command.arg(peers::find("althing").expect("was looked for first"));
    command
}

/// Under load: the replica started by `command` ends by itself, the others go on; a plain start brings
/// it back.
fn ends_and_returns(network: &mut Network, name: &str, victim: usize) {
    let others: Vec<usize> = (0..4).filter(|index| *index != victim).collect();
    let writers: Vec<_> = network.replicas.iter().collect();
    let load = Load::start(name, &writers);
    let status = network.wait_for_end(victim);
    assert_eq!(status.code(), Some(EXIT_LOG_FAILED), "{name}: {status}");
    load.progress("after its end", WARM_UP);
    let ledger = load.finish();
    let (writes, unknown) = (ledger.len(), ledger.failures);
    eprintln!("{name}: {writes} writes, {unknown} unknown, longest {:?}", ledger.longest_gap);
    assert!(ledger.len() as u64 > 2 * WARM_UP, "{name}: too little was written");
    network.restart(victim);
    ledger.check(network);
    roots_become_equal(network);
    votes(network, victim, others[0]);
}

fn failing_sync(name: &str, choose: impl FnOnce(usize) -> usize) {
    if !peers::available(&format!("process::{name}"), &["althing", "etcdctl", "strace"]) {
        return;
    }
    let mut network = Network::start(4);
    let victim = choose(network.known_primary(0));
    network.kill(victim);
    let said = network.directory().join("strace");
    network.launch_by(victim, under_strace("error=EIO:when=150", &said));
    network.wait_until_ready(victim);
    ends_and_returns(&mut network, name, victim);
    let said = std::fs::read_to_string(&said).expect("what strace saw");
    assert!(said.contains("(INJECTED)"), "no sync was made to fail:\n{said}");
}

#[test]
fn a_sync_that_fails_ends_the_replica_at_once_and_a_start_brings_it_back() {
    failing_sync("failed_sync", |primary| (primary + 1) % 4);
}

/// A quarter of a second for each sync: the others do not wait for it.
#[test]
fn a_replica_with_slow_syncs_holds_nobody_up() {
    if !peers::available("process::slow_sync", &["althing", "etcdctl", "strace"]) {
        return;
    }
    let mut network = Network::start(4);
    let victim = (network.known_primary(0) + 1) % 4;
    network.kill(victim);
    let said = network.directory().join("strace");
    network.launch_by(victim, under_strace("delay_exit=250000", &said));
    network.wait_until_ready(victim);
    let writers: Vec<_> = (0..4).map(|index| &network.replicas[index]).collect();
    let load = Load::start("slow-sync", &writers);
    load.progress("beside slow syncs", WARM_UP);
    eventually("ten syncs were slow", || {
        std::fs::read_to_string(&said).is_ok_and(|said| said.matches("(DELAYED)").count() >= 10)
    });
    load.progress("beside slow syncs still", WARM_UP);
    let ledger = load.finish();
    eprintln!("slow sync: {} writes, longest wait {:?}", ledger.len(), ledger.longest_gap);
    ledger.check(&network);
    roots_become_equal(&network);
    network.kill(victim);
    network.restart(victim);
    ledger.check(&network);
}

/// A small disk of its own under a replica's data directory, in a mount namespace that lives as long as
/// this does.
struct SmallDisk {
    holder: Process,
    mounted: PathBuf,
}

impl SmallDisk {
    /// What the data directory holds now is on it.
    fn under(data: &Path) -> SmallDisk {
        let mounted = data.with_extension("mounted");
        std::fs::create_dir_all(&mounted).expect("a mount point");
        let script = format!(
            "mount -t tmpfs -o size=300m,mode=700 none {0} && cp -a {1}/. {0}/ && \
             mount --bind {0} {1} && echo mounted && exec sleep 3600",
            mounted.display(),
            data.display()
        );
        let mut command = peers::command("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", &script]);
        let holder = Process::start("disk", command, &data.with_extension("mount-output"));
        eventually("the disk is mounted", || holder.output().contains("mounted\n"));
        SmallDisk { holder, mounted }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = peers::command("nsenter");
        command.arg(format!("--target={}", self.holder.id()));
        command.args(["--user", "--mount", "--preserve-credentials"]).arg(program);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(program).args(arguments).output().expect("it runs");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// From now on it holds what is on it and `free` KiB more.
    fn shrink_to_free(&self, free: u64) {
        let path = self.mounted.display().to_string();
        // Refused if something was written since the question what is used.
        eventually("the disk is shrunk", || {
            let used = self.run("df", &["--output=used", "-k", &path]).expect("df answers");
            let used: Option<u64> = used.lines().last().and_then(|line| line.trim().parse().ok());
            self.resize(used.expect("a size") + free).is_ok()
        });
    }

    fn resize(&self, kib: u64) -> Result<(), String> {
        let path = self.mounted.display().to_string();
        self.run("mount", &["-o", &format!("remount,size={kib}k"), &path]).map(drop)
    }
}

#[test]
fn a_full_disk_ends_the_replica_cleanly_and_space_brings_it_back() {
    if !peers::available("process::full_disk", &["althing", "etcdctl", "unshare", "nsenter"]) {
        return;
    }
    let mut network = Network::start(4);
    let victim = (network.known_primary(0) + 1) % 4;
    put(&network.replicas[victim], "before", "1");
    network.kill(victim);
    let disk = SmallDisk::under(&network.replicas[victim].home().join("data"));
    let althing = peers::find("althing").expect("was looked for first");
    network.launch_by(victim, disk.command(&althing));
    network.wait_until_ready(victim);
    let others: Vec<usize> = (0..4).filter(|index| *index != victim).collect();
    let writers: Vec<_> = network.replicas.iter().collect();
    let load = Load::start("full-disk", &writers);
    load.progress("at first", WARM_UP);
    disk.shrink_to_free(256);
    // Until the segment is full, and the next one finds no room.
    let filler = "f".repeat(1 << 20);
    let mut fillers = 0;
    eventually("the disk is full", || {
        let client = network.replicas[others[0]].client();
        let request = format!("key:'filler/{fillers}' value:'{filler}'");
        fillers += usize::from(client.call_within("KV/Put", &request, MINUTE).is_ok());
        network.has_ended(victim)
    });
    let status = network.wait_for_end(victim);
    assert_eq!(status.code(), Some(EXIT_LOG_FAILED), "{status}");
    let output = network.replicas[victim].output();
    let last = output.lines().last().unwrap_or_default();
    assert!(last.contains("space"), "it says why: {last}");
    load.progress("after its end", WARM_UP);
    let ledger = load.finish();
    eprintln!("full disk: {} writes, {fillers} fillers; {last}", ledger.len());
    // Without space it does not come up, and says so.
    network.launch_by(victim, disk.command(&althing));
    let status = network.wait_for_end(victim);
    eprintln!("full disk: started while full: {status}");
    assert!(!status.success());
    disk.resize(400 << 10).expect("a larger disk");
    network.launch_by(victim, disk.command(&althing));
    network.wait_until_ready(victim);
    ledger.check(&network);
    roots_become_equal(&network);
    network.kill(others[0]);
    let load = Load::start("full-disk-again", &[&network.replicas[victim]]);
    load.progress("with the returned one, which must vote", WARM_UP);
    let again = load.finish();
    network.restart(others[0]);
    again.check(&network);
    ledger.check(&network);
}
