//! Writes the tables of scenarios and of planted bugs with the results of runs.

use std::process::ExitCode;

use conformance::scenarios::{Results, TEXT, parse, planted_table, table};

const HELP: &str = "Writes the tables of scenarios and of planted bugs with the results of runs.

  scenarios OUTPUT...              prints them; OUTPUT is what `./test`, `cargo test`, `sim` printed
  scenarios --into PAGE OUTPUT...  puts them between the page's marks; a table whose results are in
                                   no OUTPUT stays as it is
";
const SCENARIOS: (&str, &str) =
    ("<!-- scenarios: written by `scenarios --into`, not by hand -->", "<!-- end of scenarios -->");
const PLANTED: (&str, &str) = (
    "<!-- planted bugs: written by `scenarios --into`, not by hand -->",
    "<!-- end of planted bugs -->",
);

/// The page with another table between two of its lines.
fn put(page: &str, (begin, end): (&str, &str), table: &str) -> Result<String, String> {
    let (before, rest) = page.split_once(begin).ok_or(format!("there is no line {begin}"))?;
    let (_, after) = rest.split_once(end).ok_or(format!("there is no line {end}"))?;
    Ok(format!("{before}{begin}\n{table}{end}{after}"))
}

fn run() -> Result<(), String> {
    let mut paths: Vec<String> = std::env::args().skip(1).collect();
    let mut into = None;
    if paths.first().map(String::as_str) == Some("--into") {
        if paths.len() < 2 {
            return Err(HELP.to_owned());
        }
        into = paths.drain(..2).nth(1);
    }
    let mut results = Results::default();
    for path in &paths {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        results.read(&text);
    }
    let rows = table(&parse(TEXT)?, &results);
    let planted = planted_table(&results);
    let Some(page) = into else {
        print!("{rows}\n{planted}");
        return Ok(());
    };
    let mut text = std::fs::read_to_string(&page).map_err(|error| format!("{page}: {error}"))?;
    if !(results.tests.is_empty() && results.seen.is_empty()) {
        text = put(&text, SCENARIOS, &rows)?;
    }
    if !results.mutants.is_empty() {
        text = put(&text, PLANTED, &planted)?;
    }
    std::fs::write(&page, text).map_err(|error| format!("{page}: {error}"))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
