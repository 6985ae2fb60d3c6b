//! The unmodified etcdctl, command by command: what it prints on etcd and on Althing, side by side.
//!
//! `scripts/etcdctl_NAME.commands`: one command line each, quoted as in a shell.
//! ```text
//! get a                      as it stands
//! txn <<< one\ntwo\n         with a standard input, `\n` for a line end
//! * member list              in every form of `-w` that is text
//! watch a --rev=2 !!! 4      SIGINT once it has printed 4 lines
//! & elect a one !!! 2        goes on in the background from there
//! .                          SIGINT to all that do, in their order
//! . 6                        the same once the first has printed 6 lines
//! ? 3 get b --prefix         asked until it prints 3 lines
//! @Maintenance/Alarm ...     a call in protobuf text, for what no command does
//! ```
//! `{dir}` is a directory of the session's, `{endpoint}` the server's client URL, `{self}` the server's
//! member, `{lease}` and `{member}` what was granted and added last.

pub mod commands;
mod mask;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};

use conformance::cluster::Target;
use conformance::founded::Founded;
use conformance::peers::{self, eventually};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::script::assert_same;
use crate::{program_under_test, start};

/// Those of `-w` that are text.
const FORMS: [&str; 4] = ["simple", "fields", "json", "table"];

#[test]
fn etcdctl_prints_the_same() {
    compare("common", &["--bcrypt-cost=4"]);
}

#[test]
fn etcdctl_prints_the_same_in_every_form() {
    compare("forms", &["--bcrypt-cost=4"]);
}

#[test]
fn etcdctl_commands_that_last_print_the_same() {
    compare("lasting", &[]);
}

/// A few thousand writes, for the one command that looks at a server's memory.
#[test]
fn etcdctl_checks_the_scale_of_data() {
    compare("datascale", &[]);
}

/// Three members, every command told of all.
#[test]
fn etcdctl_prints_the_same_of_several_members() {
    side_by_side("several", |program, commands| {
        let program = if program == "etcd" { "etcd" } else { "althing" };
        let mut network = Founded::of(program, 3);
        network.launch_all();
        // etcd writes the version of its storage down some seconds after it begins.
        for at in 0..3 {
            eventually("the storage has its version", || {
                let status = network.client(at).call("Maintenance/Status", "");
                status.is_ok_and(|status| format!("{status:?}").contains("3.7.0"))
            });
        }
        let urls: Vec<&str> = network.members.iter().map(|one| one.client_url.as_str()).collect();
        Session::new(Target::given(program, &urls.join(","), None)).run(commands)
    });
}

fn compare(name: &str, flags: &[&str]) {
    side_by_side(name, |program, commands| Session::new(start(program, flags)).run(commands));
}

/// A script on etcd and on what is tested, at the same time.
fn side_by_side(name: &str, play: impl Fn(&str, &str) -> String + Sync) {
    let program = program_under_test();
    if !peers::available(&format!("api::etcdctl {name}"), &["etcd", "etcdctl", &program]) {
        return;
    }
    let commands = script(name);
    let side = |program: &str| play(program, &commands);
    let (expected, found) = std::thread::scope(|threads| {
        let etcd = threads.spawn(|| side("etcd"));
        (side(&program), etcd.join())
    });
    let (found, expected) = (expected, found.expect("etcd's side"));
    assert_same(&format!("etcdctl on etcd and {program}"), &expected, &found);
}

fn script(name: &str) -> String {
    let path = format!("{}/tests/api/scripts/etcdctl_{name}.commands", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// The lines of a script that are run.
fn lines(script: &str) -> impl Iterator<Item = &str> {
    script.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// One line of a script, taken apart.
struct Line<'a> {
    forms: bool,
    background: bool,
    /// Asked until it prints so many lines.
    until: Option<usize>,
    /// Interrupted once it has printed so many lines.
    stops_at: Option<usize>,
    command: &'a str,
    input: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Line<'a> {
        let mut parsed = Line {
            forms: false,
            background: false,
            until: None,
            stops_at: None,
            command: line,
            input: "",
        };
        let count = |text: &str| text.trim().parse().expect("a count");
        if let Some((command, lines)) = parsed.command.rsplit_once(" !!! ") {
            (parsed.command, parsed.stops_at) = (command, Some(count(lines)));
        }
        if let Some((command, input)) = parsed.command.split_once(" <<< ") {
            (parsed.command, parsed.input) = (command, input);
        }
        if let Some(command) = parsed.command.strip_prefix("* ") {
            (parsed.forms, parsed.command) = (true, command);
        } else if let Some(command) = parsed.command.strip_prefix("& ") {
            (parsed.background, parsed.command) = (true, command);
        } else if let Some(command) = parsed.command.strip_prefix("? ") {
            let (lines, command) = command.split_once(' ').expect("? COUNT COMMAND");
            (parsed.until, parsed.command) = (Some(count(lines)), command);
        }
        parsed
    }
}

/// Splits at blanks outside single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().expect("one word").push(other),
        }
    }
    words
}

/// One run of a script on one server.
struct Session {
    target: Target,
    folder: TempDir,
    /// What braces in a script stand for.
    names: BTreeMap<&'static str, String>,
    background: Vec<Running>,
    started: usize,
    transcript: String,
}

/// An etcdctl whose output goes to files.
struct Running {
    shown: String,
    words: Vec<String>,
    child: Child,
    input: Option<ChildStdin>,
    output: PathBuf,
    errors: PathBuf,
}

impl Running {
    fn lines(&self) -> usize {
        fs::read(&self.output).expect("its output").iter().filter(|byte| **byte == b'\n').count()
    }

    fn interrupt(&mut self) {
        // One that has ended by itself is seen by its exit code. Not SIGINT, which etcdctl treats alike: a
        // shell's background job ignores it, and all that it starts.
        if self.child.try_wait().expect("its state").is_none() {
            kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a signal");
        }
    }
}

impl Session {
    fn new(target: Target) -> Session {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let names = BTreeMap::from([
            ("{dir}", folder.path().display().to_string()),
            ("{endpoint}", target.endpoint.clone()),
        ]);
        let (background, transcript) = (Vec::new(), String::new());
        Session { target, folder, names, background, started: 0, transcript }
    }

    fn run(mut self, script: &str) -> String {
        for line in lines(script) {
            if let Some(lines) = line.strip_prefix('.') {
                let lines = lines.trim().parse().unwrap_or(0);
                let first = self.background.first().expect("what began");
                eventually(line, || first.lines() >= lines);
                for mut running in std::mem::take(&mut self.background) {
                    running.interrupt();
                    self.finish(running);
                }
            } else if let Some(call) = line.strip_prefix('@') {
                let (method, request) = call.split_once(' ').expect("@METHOD REQUEST");
                self.target.call(method, request).expect("a call that prepares");
            } else {
                self.take(&Line::parse(line), line);
            }
        }
        assert!(self.background.is_empty(), "a script ends what it began");
        self.transcript
    }

    fn take(&mut self, line: &Line<'_>, shown: &str) {
        if line.forms {
            for form in FORMS {
                let command = format!("-w {form} {}", line.command);
                let mut running = self.start(&command, line.input, shown);
                running.input = None;
                running.shown = format!("-w {form} {shown}");
                self.finish(running);
            }
            return;
        }
        if let Some(lines) = line.until {
            eventually(shown, || {
                let mut running = self.start(line.command, line.input, shown);
                running.input = None;
                running.child.wait().expect("it ends");
                running.lines() >= lines
            });
        }
        let mut running = self.start(line.command, line.input, shown);
        // What lasts may end where its input does.
        running.input = running.input.filter(|_| line.stops_at.is_some());
        if let Some(lines) = line.stops_at {
            eventually(shown, || {
                let ended = running.child.try_wait().expect("its state").is_some();
                ended || running.lines() >= lines
            });
            if line.background {
                self.background.push(running);
                return;
            }
            running.interrupt();
        }
        self.finish(running);
    }

    fn start(&mut self, command: &str, input: &str, shown: &str) -> Running {
        self.started += 1;
        let mut command = command.to_owned();
        if command.contains("{self}") {
            let list = self.target.etcdctl_json(&["-w", "json", "member", "list", "--hex"]);
            let list = list.expect("the members");
            let members = list["members"].as_array().expect("a list");
            // One that has not started has no name.
            let own = members.iter().find(|member| member["name"].is_string());
            let id = own.expect("itself")["ID"].as_str().expect("its id");
            command = command.replace("{self}", id);
        }
        for (name, value) in &self.names {
            command = command.replace(name, value);
        }
        let words = words(&command);
        let file = |kind: &str| self.folder.path().join(format!("{}.{kind}", self.started));
        let (output, errors) = (file("output"), file("errors"));
        let mut child = self
            .target
            .etcdctl()
            // A busy machine is no difference.
            .env("ETCDCTL_COMMAND_TIMEOUT", "60s")
            .args(&words)
            .stdin(Stdio::piped())
            .stdout(File::create(&output).expect("a file"))
            .stderr(File::create(&errors).expect("a file"))
            .spawn()
            .expect("etcdctl starts");
        let mut pipe = child.stdin.take().expect("a pipe");
        // A command that does not read its input may have closed it.
        let _unread = pipe.write_all(input.replace("\\n", "\n").as_bytes());
        Running { shown: shown.to_owned(), words, child, input: Some(pipe), output, errors }
    }

    /// Waits for its end and shows what it printed.
    fn finish(&mut self, mut running: Running) {
        let mut status = None;
        eventually(&running.shown, || {
            status = running.child.try_wait().expect("its state");
            status.is_some()
        });
        drop(running.input);
        let code = status.and_then(|status| status.code());
        let code = code.map_or_else(|| "by the signal".to_owned(), |code| code.to_string());
        let printed = fs::read(&running.output).expect("its output");
        let errors = fs::read(&running.errors).expect("its errors");
        let errors = String::from_utf8_lossy(&errors).into_owned();
        // Its own log lines, and bars of progress.
        let errors = errors.lines().filter(|line| !line.starts_with('{') && !line.contains("p/s"));
        self.learn(&String::from_utf8_lossy(&printed));
        let folder = self.folder.path().display().to_string();
        let mask = mask::Mask { endpoint: &self.target.endpoint, folder: &folder };
        let mut shown = mask.output(&running.words, &printed);
        shown.extend(errors.map(|line| mask.line(line)));
        writeln!(self.transcript, "{}", running.shown).expect("text");
        for line in shown {
            writeln!(self.transcript, "    {line}").expect("text");
        }
        writeln!(self.transcript, "    exit {code}").expect("text");
    }

    /// Takes from what a command printed what later ones name.
    fn learn(&mut self, printed: &str) {
        let mut words = printed.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("lease"), Some(id), Some("granted")) => {
                self.names.insert("{lease}", id.to_owned());
            }
            (Some("Member"), Some(id), Some("added")) => {
                self.names.insert("{member}", id.to_owned());
            }
            _ => {}
        }
    }
}
