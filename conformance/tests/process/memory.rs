//! A replica that the kernel kills because its memory is used up (faults.md D17): a crash like any other.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::network::Network;
use conformance::peers::{self, eventually};

use crate::load::Load;
use crate::{WARM_UP, damage, roots_become_equal};

/// What it may still take when the limit is set: less than it keeps of recent large blocks.
const SPARE: u64 = 16 << 20;

/// A cgroup with a memory limit; of either version, where this user may make one.
struct Cgroup {
    directory: PathBuf,
    limit: &'static str,
}

impl Cgroup {
    fn make() -> Option<Cgroup> {
        let name = format!("althing-test-{}", std::process::id());
        let roots =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        roots.into_iter().find_map(|(root, limit)| {
            let group = Cgroup { directory: Path::new(root).join(&name), limit };
            std::fs::create_dir(&group.directory).ok()?;
            group.limit_to(1 << 40).ok()?;
            Some(group)
        })
    }

    fn limit_to(&self, bytes: u64) -> std::io::Result<()> {
        std::fs::write(self.directory.join(self.limit), bytes.to_string())
    }

    /// Starts `program` inside.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        let enter =
            format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.directory.display());
        command.arg("-c").arg(enter).arg(program);
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Nobody is in it any more, or the directory stays: it costs nothing.
        drop(std::fs::remove_dir(&self.directory));
    }
}

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") << 10
}

#[test]
fn a_replica_killed_for_its_memory_under_load_comes_back_with_everything() {
    let test = "process::memory";
    if !peers::available(test, &["althing", "etcdctl"]) {
        return;
    }
    let Some(group) = Cgroup::make() else {
        return peers::skip(test, "the right to make a cgroup with a memory limit");
    };
    let mut network = Network::start(4);
    let victim = (network.known_primary(0) + 1) % 4;
    network.kill(victim);
    network.launch_by(victim, group.command(&peers::find("althing").expect("was looked for")));
    network.wait_until_ready(victim);
    let writers: Vec<_> = network.replicas.iter().collect();
    let load = Load::start("memory", &writers);
    load.progress("at first", WARM_UP);
    // A little more than it uses: large values take more.
    let used = resident_bytes(network.process_id(victim));
    group.limit_to(used + SPARE).expect("a lower limit");
    let other = network.replicas[(victim + 1) % 4].client();
    let mut number = 0;
    eventually("it is killed", || {
        number += 1;
        let value = "m".repeat(256 << 10);
        drop(other.call("KV/Put", &format!("key:'memory/{number}' value:'{value}'")));
        network.has_ended(victim)
    });
    let status = network.wait_for_end(victim);
    assert_eq!(status.signal(), Some(9), "the kernel kills it: {status}");
    load.progress("after its end", WARM_UP);
    let ledger = load.finish();
    eprintln!("memory: {used} bytes used, {number} large writes, {} writes", ledger.len());
    network.restart(victim);
    ledger.check(&network);
    roots_become_equal(&network);
    damage::votes(&mut network, victim, (victim + 1) % 4);
    ledger.check(&network);
}
