//! Which commands etcdctl has, by its own word, and that a script runs each of them.

use std::collections::{BTreeMap, BTreeSet};

use conformance::peers::{self, command};

use super::{FORMS, Line, lines, script, words};

/// All scripts.
const SCRIPTS: [&str; 5] = ["common", "forms", "lasting", "datascale", "several"];
/// What a script cannot run in a test's time, and who does.
const ELSEWHERE: [(&str, &str); 1] = [("check perf", "suites/benchmark.sh")];
/// Commands that print in one form whatever `-w` says.
const ONE_FORM: [&str; 13] = [
    "auth disable",
    "auth enable",
    "check datascale",
    "check perf",
    "compaction",
    "completion",
    "defrag",
    "help",
    "make-mirror",
    "options",
    "snapshot save",
    "version",
    "alarm disarm",
];

/// The name of the command in a command line: flags in front, with their values, are none.
pub fn name(words: &[String]) -> String {
    let mut rest = words.iter().map(String::as_str);
    let mut found = Vec::new();
    while let Some(word) = rest.next() {
        match word {
            "-w" | "--user" | "--password" => drop(rest.next()),
            _ if word.starts_with('-') => {}
            _ => found.push(word),
        }
        if found.len() == 2 {
            break;
        }
    }
    let groups = [
        "alarm",
        "auth",
        "check",
        "downgrade",
        "endpoint",
        "lease",
        "member",
        "role",
        "snapshot",
        "user",
    ];
    match found.first() {
        Some(first) if !groups.contains(first) => (*first).to_owned(),
        _ => found.join(" "),
    }
}

/// The form that a command line asks for.
pub fn form(words: &[String]) -> Option<&String> {
    words.iter().skip_while(|word| *word != "-w").nth(1)
}

/// Everything that can be run, as `etcdctl --help` and that of its groups list it.
fn leaves(path: &[&str], found: &mut BTreeSet<String>) {
    let output = command("etcdctl").args(path).arg("--help").output().expect("etcdctl runs");
    let help = String::from_utf8(output.stdout).expect("text");
    let mut listed = Vec::new();
    let mut in_list = false;
    for line in help.lines() {
        if !line.starts_with(' ') {
            in_list = line.trim_end_matches(':').to_lowercase().ends_with("commands");
        } else if in_list {
            listed.extend(line.split_whitespace().next());
        }
    }
    for name in &listed {
        leaves(&[path, &[*name]].concat(), found);
    }
    if listed.is_empty() {
        found.insert(path.join(" "));
    }
}

/// The forms in which scripts run each command.
pub fn run() -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for which in SCRIPTS {
        let script = script(which);
        for line in lines(&script).filter(|line| !line.starts_with('.') && !line.starts_with('@')) {
            let line = Line::parse(line);
            let words = words(line.command);
            let forms = all.entry(name(&words)).or_default();
            match form(&words) {
                Some(form) => drop(forms.insert(form.clone())),
                None if line.forms => forms.extend(FORMS.map(str::to_owned)),
                None => drop(forms.insert("simple".to_owned())),
            }
        }
    }
    all
}

#[test]
fn scripts_run_every_command_that_etcdctl_lists_in_every_form() {
    if !peers::available("api::etcdctl commands", &["etcdctl"]) {
        return;
    }
    let mut listed = BTreeSet::new();
    leaves(&[], &mut listed);
    assert!(listed.len() > 40, "{listed:?}");
    let run = run();
    let folder = env!("CARGO_MANIFEST_DIR");
    for (command, file) in ELSEWHERE {
        let text = std::fs::read_to_string(format!("{folder}/{file}")).expect("a suite");
        assert!(text.contains(command), "{file} runs {command}");
    }
    let elsewhere = |name: &&String| ELSEWHERE.iter().all(|(command, _)| command != name);
    for name in listed.iter().filter(elsewhere) {
        let forms = run.get(name).unwrap_or_else(|| panic!("no script runs etcdctl {name}"));
        for form in FORMS.iter().filter(|_| !ONE_FORM.contains(&name.as_str())) {
            assert!(forms.contains(*form), "no script runs etcdctl -w {form} {name}");
        }
    }
    for name in run.keys().filter(|name| !listed.contains(*name)) {
        // Groups without a command, and what is mistyped on purpose.
        let first = name.split(' ').next().unwrap_or_default();
        let group = listed.iter().any(|listed| listed.starts_with(&format!("{first} ")));
        assert!(group || name == "unknown-command", "etcdctl has no command {name}");
    }
}
