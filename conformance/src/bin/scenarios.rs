//! Writes the table of scenarios with the results of runs.

use std::process::ExitCode;

use conformance::scenarios::{Results, TEXT, parse, table};

const HELP: &str = "Writes the table of scenarios with the results of runs.

  scenarios OUTPUT...              prints it; OUTPUT is what `./test`, `cargo test`, `sim` printed
  scenarios --into PAGE OUTPUT...  puts it between the page's marks
";
const BEGIN: &str = "<!-- scenarios: written by `scenarios --into`, not by hand -->";
const END: &str = "<!-- end of scenarios -->";

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
    let table = table(&parse(TEXT)?, &results);
    let Some(page) = into else {
        print!("{table}");
        return Ok(());
    };
    let text = std::fs::read_to_string(&page).map_err(|error| format!("{page}: {error}"))?;
    let (before, rest) = text.split_once(BEGIN).ok_or(format!("{page} has no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).ok_or(format!("{page} has no line {END}"))?;
    let text = format!("{before}{BEGIN}\n{table}{END}{after}");
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
