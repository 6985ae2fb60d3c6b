//! `docs/operating/flags.md` is written from the table: with `ALTHING_WRITE_DOCS=1` this test writes
//! it, without it compares.

use core::fmt::Write;

use super::flag_table::{FLAGS, Scope, Section};

const HEAD: &str = "# Flags

`althing serve` takes every flag of etcd 3.7 (`--flag=value` or `--flag value`; a switch alone is true; of several the last counts).
Each has a variable, `ETCD_` or `ALTHING_` and its name in capitals. An etcd flag and its variable both set is an error, as in
etcd; of Althing's own the flag wins. With `--config-file` (etcd's YAML, durations in nanoseconds) all others have no effect. An
unknown flag is an error that names the nearest; an unknown `ETCD_` variable or key of the file is a warning.

*local*: this process alone. *admission*: what this replica admits, never above the network's own bound. *voted*: the same on all
replicas; in a network of one owner that of the member started last, where organisations govern by
their vote. *no effect*: accepted, with one warning line if its value is not the default. *refused*: anything but the default ends the
start.

This page is generated: `ALTHING_WRITE_DOCS=1 cargo test --lib flags_doc`.
";

fn page() -> String {
    let mut text = HEAD.to_owned();
    let mut section = None;
    for flag in FLAGS {
        if section != Some(flag.section) {
            section = Some(flag.section);
            let title = super::flags::title(flag.section);
            let _ = write!(
                text,
                "\n## {title}\n\n| flag | default | scope | |\n| --- | --- | --- | --- |\n"
            );
        }
        let scope = match flag.scope {
            Scope::Local => "local".to_owned(),
            Scope::Admission => "admission".to_owned(),
            Scope::Voted => "voted".to_owned(),
            Scope::Ignored(why) => format!("no effect: {why}"),
            Scope::Refused(why) => format!("refused: {why}"),
        };
        let default =
            if flag.default.is_empty() { String::new() } else { format!("`{}`", flag.default) };
        let _ = writeln!(text, "| `--{}` | {default} | {scope} | {} |", flag.name, flag.help);
    }
    text
}

#[test]
fn the_page_of_flags_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating/flags.md");
    if std::env::var_os("ALTHING_WRITE_DOCS").is_some() {
        std::fs::write(path, page()).expect("written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page(), "docs/operating/flags.md is not the table; see its first lines");
    assert!(FLAGS.iter().any(|flag| flag.section == Section::Althing));
}
