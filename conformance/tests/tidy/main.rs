//! Rules of the repository as tests (`docs/architecture.md`): who imports whom, how long things are,
//! what is documented. A failure names the rule, the reason and what to do instead. What was above a rule
//! when the rule came stands in `table.rs`, in lists that only shrink.

mod source;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use althing::planted::Bug;
use conformance::bank;
use conformance::scenarios::{self, Way};
use conformance::sim::plan::Mutant;
use source::{Source, files, sources, text};
use table::{
    COLUMN_RATCHET, COLUMNS, FILE_LINES, FILE_LINES_MAX, FILE_RATCHET, IMPORT_RATCHET,
    MODULE_RATCHET, ONLY_IN, PAGES_TO_COME, PLANTED, PURE_RATCHET, RULES, Rule, TEXT_COLUMNS,
};

/// Fails with all findings at once.
fn report(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "\n{rule}\n  {}\n", findings.join("\n  "));
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Every place in `code` where `word` stands alone.
fn places<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).map(|at| code.as_bytes()[at]);
        let after = code.as_bytes().get(at + word.len());
        !before.is_some_and(is_word) && !after.copied().is_some_and(is_word)
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The first path segments behind a root: one after `root::`, several after `root::{`.
fn segments(rest: &str) -> Vec<String> {
    let word =
        |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(inside) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(word(&inside[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(word(&inside[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|name: &String| !name.is_empty());
    found
}

/// The top-level modules a file names: behind `crate::`, or behind as many `super::` as lead to the root.
fn modules_named(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    for at in places(code, "crate") {
        if let Some(rest) = code[at + 5..].strip_prefix("::") {
            found.extend(segments(rest).into_iter().map(|name| (line_of(code, at), name)));
        }
    }
    let to_root = "super::".repeat(source.depth);
    for at in places(code, "super") {
        let begins = !code[..at].ends_with("super::");
        if let (true, true, Some(rest)) =
            (begins, source.depth > 0, code[at..].strip_prefix(&to_root))
        {
            found.extend(segments(rest).into_iter().map(|name| (line_of(code, at), name)));
        }
    }
    found
}

#[test]
fn segments_are_found_in_nested_imports() {
    assert_eq!(segments("a::b;"), ["a"]);
    assert_eq!(segments("{a::{b, c}, d, e::f as g};"), ["a", "d", "e"]);
}

/// Names of all dependencies, as code writes them.
fn dependencies() -> BTreeSet<String> {
    let manifest = text("Cargo.toml");
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if let (true, Some((name, _))) = (inside, line.split_once('=')) {
            names.insert(name.trim().replace('-', "_"));
        }
    }
    names
}

fn crates_named(source: &Source, dependencies: &BTreeSet<String>) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    for name in dependencies {
        for at in places(code, name) {
            let (before, after) = (&code[..at], &code[at + name.len()..]);
            let path = after.starts_with("::") && !before.ends_with("::") && !before.ends_with('.');
            let import = before.ends_with("use ") && after.starts_with([';', ' ']);
            if path || import {
                found.push((line_of(code, at), name.clone()));
            }
        }
    }
    found
}

fn rule_of(source: &Source) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.module == source.module)
}

#[test]
fn every_module_imports_only_what_the_table_allows() {
    let dependencies = dependencies();
    let known: BTreeSet<&str> = RULES.iter().map(|rule| rule.module).collect();
    let (mut findings, mut used) = (Vec::new(), BTreeSet::new());
    for source in sources() {
        let Some(rule) = rule_of(&source) else {
            if !["lib", "main"].contains(&source.module.as_str()) {
                findings
                    .push(format!("{}: a module the table does not know; add a row", source.path));
            }
            continue;
        };
        let mut refuse = |line: usize, what: String, why: &str| {
            let excused =
                IMPORT_RATCHET.iter().find(|(file, name)| *file == source.path && *name == what);
            match excused {
                Some(entry) => drop(used.insert(*entry)),
                None => findings.push(format!("{}:{line}: names {what}: {why}", source.path)),
            }
        };
        for (line, name) in modules_named(&source) {
            let free = [rule.module, PLANTED].contains(&name.as_str());
            let inside = free || !known.contains(name.as_str());
            if !inside && !rule.modules.contains(&name.as_str()) {
                refuse(line, format!("crate::{name}"), rule.instead);
            }
        }
        for (line, name) in crates_named(&source, &dependencies) {
            let place = ONLY_IN.iter().find(|(only, _)| *only == name && rule.module == "storage");
            if name == "bytes" {
            } else if !rule.crates.contains(&name.as_str()) {
                refuse(line, name, rule.instead);
            } else if let Some((_, only)) = place
                && !source.path.starts_with(only)
            {
                refuse(line, name, &format!("only {only} knows it"));
            }
        }
    }
    let stale = IMPORT_RATCHET.iter().filter(|entry| !used.contains(*entry));
    findings.extend(stale.map(|(file, name)| {
        format!("{file} no longer names {name}: delete the line from IMPORT_RATCHET")
    }));
    report("imports go one way (docs/architecture.md, the import table)", &findings);
}

/// What the pure half never names; the reason is one for all: the simulator must see every effect.
const IMPURE: &[(&str, &str)] = &[
    ("HashMap", "use BTreeMap: its order is the same everywhere"),
    ("HashSet", "use BTreeSet: its order is the same everywhere"),
    ("Mutex", "one owner and `&mut`"),
    ("RwLock", "one owner and `&mut`"),
    ("Instant", "take time as an input"),
    ("SystemTime", "take time as an input"),
    ("println", "return it; only the shell speaks"),
    ("eprintln", "return it; only the shell speaks"),
    ("dbg", "delete it"),
];
const IMPURE_STD: &[&str] = &["fs", "net", "thread", "env", "process", "time"];
const IMPURE_FILES: &[&str] = &["src/storage/disk/os.rs", "src/storage/index"];

#[test]
fn the_pure_part_has_no_clock_lock_socket_or_file() {
    let (mut findings, mut used) = (Vec::new(), BTreeSet::new());
    for source in sources() {
        let exempt = IMPURE_FILES.iter().any(|path| source.path.starts_with(path));
        if exempt || !rule_of(&source).is_some_and(|rule| rule.pure) {
            continue;
        }
        let words = IMPURE.iter().flat_map(|(word, instead)| {
            places(&source.code, word).map(|at| (at, (*word).to_owned(), *instead))
        });
        let source = &source;
        let paths = IMPURE_STD.iter().flat_map(|name| {
            let found = source.code.match_indices("std::").map(|(at, _)| at);
            let named = found.filter(move |&at| {
                segments(&source.code[at + 5..]).iter().any(|part| part == name)
            });
            named.map(move |at| {
                (at, format!("std::{name}"), "the shell does it and passes the result in")
            })
        });
        for (at, what, instead) in words.chain(paths) {
            match PURE_RATCHET.iter().find(|(file, name)| *file == source.path && *name == what) {
                Some(entry) => drop(used.insert(*entry)),
                None => findings.push(format!(
                    "{}:{}: names {what}; {instead}",
                    source.path,
                    line_of(&source.code, at)
                )),
            }
        }
    }
    let stale = PURE_RATCHET.iter().filter(|entry| !used.contains(*entry));
    findings.extend(stale.map(|(file, what)| {
        format!("{file} no longer names {what}: delete the line from PURE_RATCHET")
    }));
    report("the pure part is a function of its inputs (docs/architecture.md)", &findings);
}

/// Compares counts with a limit, where a list names those allowed more.
fn over(counts: &BTreeMap<String, usize>, limit: usize, ratchet: &[(&str, usize)]) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, count) in counts {
        let allowed =
            ratchet.iter().find(|(of, _)| of == name).map_or(limit, |(_, at_most)| *at_most);
        if *count > allowed {
            findings.push(format!("{name}: {count}, at most {allowed}"));
        }
    }
    for (name, _) in ratchet {
        if counts.get(*name).is_none_or(|count| *count <= limit) {
            findings
                .push(format!("{name}: within the rule by now; delete its line from the ratchet"));
        }
    }
    findings
}

#[test]
fn files_stay_short() {
    let counts: BTreeMap<String, usize> =
        sources().into_iter().map(|source| (source.path, source.lines.len())).collect();
    report(
        "a file has at most 500 lines without tests: split it by what it owns",
        &over(&counts, FILE_LINES, FILE_RATCHET),
    );
    let longest: Vec<String> = counts
        .iter()
        .filter(|(_, count)| **count > FILE_LINES_MAX)
        .map(|(path, count)| format!("{path}: {count}"))
        .collect();
    report("no file has more than 800 lines without tests, whatever the list says", &longest);
}

#[test]
fn modules_stay_within_their_budgets() {
    let (mut lines, mut tests): (BTreeMap<String, usize>, BTreeMap<String, usize>) =
        Default::default();
    for source in sources() {
        *lines.entry(source.module.clone()).or_default() += source.lines.len();
        *tests.entry(source.module).or_default() += source.test_lines;
    }
    let mut findings = Vec::new();
    println!("{:<10} {:>7} {:>7} {:>7}", "module", "lines", "budget", "tests");
    for rule in RULES {
        let count = lines.get(rule.module).copied().unwrap_or(0);
        let test_lines = tests.get(rule.module).copied().unwrap_or(0);
        println!("{:<10} {count:>7} {:>7} {test_lines:>7}", rule.module, rule.budget);
        let ratchet: Vec<(&str, usize)> =
            MODULE_RATCHET.iter().filter(|(name, _)| *name == rule.module).copied().collect();
        let one = BTreeMap::from([(rule.module.to_owned(), count)]);
        findings.extend(over(&one, rule.budget, &ratchet));
    }
    let (all, all_tests): (usize, usize) = (lines.values().sum(), tests.values().sum());
    println!("{:<10} {all:>7} {:>7} {all_tests:>7}", "all", 30_000);
    report(
        "a module stays within its budget: simplify it, or argue for a larger one here",
        &findings,
    );
}

#[test]
fn lines_fit_100_columns() {
    let mut counts = BTreeMap::new();
    let mut shown = Vec::new();
    for path in rust_files() {
        let long: Vec<usize> = text(&path)
            .lines()
            .enumerate()
            .filter(|(_, line)| too_long(line))
            .map(|(at, _)| at + 1)
            .collect();
        shown.extend(long.iter().map(|line| format!("{path}:{line}")));
        counts.insert(path, long.len());
    }
    let findings = over(&counts, 0, COLUMN_RATCHET);
    let rule =
        format!("a line has at most {COLUMNS} columns: run `cargo fmt`; {}", shown.join(" "));
    report(&rule, &findings);
}

fn too_long(line: &str) -> bool {
    let words = line.trim_start().starts_with("//") || line.contains('"');
    let limit = if words { TEXT_COLUMNS } else { COLUMNS };
    line.chars().count() > limit && !line.contains("://")
}

fn rust_files() -> Vec<String> {
    ["src", "benches", "conformance/src", "conformance/tests"]
        .iter()
        .flat_map(|folder| files(folder, &[".rs"]))
        .collect()
}

#[test]
fn the_compiler_asks_for_docstrings() {
    // `missing_docs` knows what can be reached from outside; a scan of `pub` does not.
    let manifest = text("Cargo.toml");
    assert!(manifest.contains("missing_docs = \"warn\""), "Cargo.toml: [lints.rust] missing_docs");
}

#[test]
fn every_exception_to_a_lint_has_a_reason() {
    let mut findings = Vec::new();
    for source in sources() {
        for start in ["#[allow(", "#![allow(", "#[expect("] {
            for (at, _) in source.code.match_indices(start) {
                let end =
                    source.code[at..].find(")]").map_or(source.code.len(), |length| at + length);
                if !source.code[at..end].contains("reason") {
                    findings.push(format!("{}:{}", source.path, line_of(&source.code, at)));
                }
            }
        }
    }
    report("an `allow` says why: #[allow(lint, reason = \"...\")]", &findings);
}

/// The variants of the enum that `head` opens in `path`.
fn variants(path: &str, head: &str) -> Vec<String> {
    let code = source::blank(&text(path));
    let Some(start) = code.find(head) else { return Vec::new() };
    let mut depth = 0;
    let mut names = Vec::new();
    for line in code[start..].lines() {
        let first: String = line.trim().chars().take_while(|c| c.is_alphanumeric()).collect();
        if depth == 1 && first.starts_with(|c: char| c.is_ascii_uppercase()) {
            names.push(first);
        }
        depth += line.matches(['{', '(']).count();
        depth -= line.matches(['}', ')']).count();
        if depth == 0 && line.contains('}') {
            break;
        }
    }
    names
}

#[test]
fn every_record_and_message_is_documented() {
    let wanted = [
        ("docs/storage-format.md", variants("src/chain/record.rs", "pub enum Record {")),
        ("docs/protocol.md", variants("src/ordering/message.rs", "pub enum Message {")),
    ];
    assert!(wanted[0].1.len() >= 12, "the records are found: {:?}", wanted[0].1);
    let mut findings = Vec::new();
    for (page, names) in wanted {
        let page_text = text(page);
        match (page_text.is_empty(), PAGES_TO_COME.contains(&page)) {
            (true, true) => continue,
            (true, false) => findings.push(format!("{page} is missing")),
            (false, true) => println!("{page} is here: delete it from PAGES_TO_COME"),
            (false, false) => {}
        }
        findings.extend(
            names
                .iter()
                .filter(|name| !page_text.contains(&format!("`{name}`")))
                .map(|name| format!("{page} does not say what `{name}` is")),
        );
    }
    report("every record and message stands in its page, as `Name`", &findings);
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    // Put together here, so that this file does not name them either.
    let places = ["work", "root", "home"].map(|name| format!("/{name}/"));
    let endings = [".rs", ".toml", ".md", ".go", ".sh", ".yaml", ".yml", ".json", ".proto", ".mod"];
    let folders = ["src", "benches", "conformance", "docs", "proto", "scripts", ".ci", ".cargo"];
    let mut paths: Vec<String> =
        folders.iter().flat_map(|folder| files(folder, &endings)).collect();
    paths.extend(
        ["Cargo.toml", "README.md", "CHANGELOG.md", "SECURITY.md", "build.rs", "test", ".ci/run"]
            .map(str::to_owned),
    );
    let mut findings = Vec::new();
    for path in paths.iter().filter(|path| !path.contains("/target/")) {
        for (at, line) in text(path).lines().enumerate() {
            let named = places.iter().any(|place| {
                line.match_indices(place.as_str()).any(|(at, _)| {
                    // A longer path or an address may have such a part in its middle.
                    at == 0
                        || !line.as_bytes()[at - 1].is_ascii_alphanumeric()
                            && !b"._-}~$".contains(&line.as_bytes()[at - 1])
                })
            });
            if named {
                findings.push(format!("{path}:{}", at + 1));
            }
        }
    }
    report(
        "no path of one machine stands in the repository; derive it or take it as an argument",
        &findings,
    );
}

#[test]
fn every_scenario_is_played_or_says_what_it_waits_for() {
    let rows = scenarios::parse(scenarios::TEXT).expect("conformance/scenarios.txt is well formed");
    let mut findings = scenarios::gaps(&rows);
    let code: String = rust_files().iter().map(|path| text(path)).collect();
    let simulator: String =
        files("conformance/src/sim", &[".rs"]).iter().map(|path| text(path)).collect();
    let planted = Bug::ALL.iter().map(|(name, _)| *name);
    let bugs: BTreeSet<&str> = planted.chain(Mutant::ALL.map(|(name, _)| name)).collect();
    for row in &rows {
        for way in &row.ways {
            let known = match way {
                Way::Test(name) => code.contains(&format!("fn {name}(")),
                Way::Seen(name) => simulator.contains(&format!("\"{name}\"")),
                Way::Mutant(name) => bugs.contains(name.as_str()),
                Way::Later(what) => !what.is_empty(),
            };
            if !known {
                findings.push(format!("{}: there is no {way:?}", row.name));
            }
        }
    }
    report(
        "every row of conformance/scenarios.txt names what plays it (docs/testing.md)",
        &findings,
    );
}

#[test]
fn every_listed_bug_is_planted_and_hunted_or_says_what_it_waits_for() {
    let mut findings = bank::gaps();
    let code: String = rust_files().iter().map(|path| text(path)).collect();
    for test in bank::tests() {
        let name = test.rsplit("::").next().unwrap_or(test);
        if !code.contains(&format!("fn {name}")) {
            findings.push(format!("there is no test {name}"));
        }
    }
    report(
        "every bug of consensus.md 18 and faults.md 4.7 stands in conformance/src/bank/table.rs",
        &findings,
    );
}
