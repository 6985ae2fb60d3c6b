//! The table of scenarios: which row is played by what (`scenarios.txt`), and what the last run said of it.

use std::collections::{BTreeMap, BTreeSet};

/// How a row is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// A test function.
    Test(String),
    /// The simulator, if this counter rose.
    Seen(String),
    /// A planted bug that must be found.
    Mutant(String),
    /// Nothing yet, and what it waits for.
    Later(String),
}

/// One scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `16.1` or `D1`.
    pub name: String,
    /// What happens.
    pub what: String,
    /// What plays it; not empty.
    pub ways: Vec<Way>,
}

/// The table as it stands beside this crate.
pub const TEXT: &str = include_str!("../scenarios.txt");

/// Rows that must be there: consensus.md 16, and of faults.md 3 those marked q or n.
#[must_use]
pub fn wanted() -> Vec<String> {
    let numbered = |name: &str, last: u32| (1..=last).map(|at| format!("{name}{at}")).collect();
    let mut rows: Vec<String> = numbered("16.", 66);
    for (name, last) in [("D", 18), ("N", 7), ("T", 4), ("B", 22), ("C", 15), ("O", 14)] {
        rows.extend::<Vec<String>>(numbered(name, last));
    }
    // B17 is tried before a release only.
    rows.retain(|row| row != "B17");
    rows
}

fn way(text: &str) -> Option<Way> {
    let (kind, rest) = text.split_once(' ')?;
    let rest = rest.trim().to_owned();
    match kind {
        "test" => Some(Way::Test(rest)),
        "sim" => Some(Way::Seen(rest)),
        "mutant" => Some(Way::Mutant(rest)),
        "later:" => Some(Way::Later(rest)),
        _ => None,
    }
}

/// Reads the table.
///
/// # Errors
/// A line that is not a row.
pub fn parse(text: &str) -> Result<Vec<Row>, String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let [name, what, ways] = line.split(" | ").collect::<Vec<_>>()[..] else {
                return Err(format!("not `row | what | ways`: {line}"));
            };
            let ways: Option<Vec<Way>> = ways.split(';').map(|one| way(one.trim())).collect();
            let ways = ways.filter(|ways| !ways.is_empty()).ok_or(format!("what plays {name}?"))?;
            Ok(Row { name: name.to_owned(), what: what.to_owned(), ways })
        })
        .collect()
}

/// The simulator's counters that the table needs: each must rise over a night.
///
/// # Errors
/// The table is not well formed.
pub fn counters() -> Result<BTreeSet<String>, String> {
    let seen = |way: Way| match way {
        Way::Seen(name) => Some(name),
        _ => None,
    };
    Ok(parse(TEXT)?.into_iter().flat_map(|row| row.ways).filter_map(seen).collect())
}

/// What runs printed: cargo's lines on tests, the simulator's counters, the deaths of planted bugs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Test function to whether it passed, wherever it stood.
    pub tests: BTreeMap<String, bool>,
    /// Counter to how often.
    pub seen: BTreeMap<String, u64>,
    /// Planted bugs in the order of the last run: each line's fields, as the bank prints them.
    pub mutants: Vec<[String; 6]>,
}

impl Results {
    /// Takes in a run's output.
    pub fn read(&mut self, text: &str) {
        for line in text.lines() {
            if let Some((test, result)) =
                line.strip_prefix("test ").and_then(|l| l.split_once(" ... "))
            {
                let name = test.split(" - ").next().unwrap_or(test).rsplit("::").next();
                let passed = result.starts_with("ok");
                if let (Some(name), true) = (name, passed || result.starts_with("FAILED")) {
                    let known = self.tests.entry(name.trim().to_owned()).or_insert(true);
                    *known &= passed;
                }
            } else if let Some(rest) = line.strip_prefix("seen ") {
                if let Some((count, what)) = rest.trim().split_once(' ')
                    && let Ok(count) = count.parse::<u64>()
                {
                    *self.seen.entry(what.to_owned()).or_default() += count;
                }
            } else if let Some(rest) = line.strip_prefix("planted ")
                && let Ok(fields) = <[&str; 6]>::try_from(rest.split(" | ").collect::<Vec<_>>())
            {
                self.mutants.retain(|known| known[1] != fields[1]);
                self.mutants.push(fields.map(str::to_owned));
            }
        }
    }

    /// What the last run said of one way: true, false, or nothing.
    fn of(&self, way: &Way) -> (Option<bool>, String) {
        let told = |good: Option<bool>, yes: String, no: &str| {
            (good, good.map_or("not run".to_owned(), |good| if good { yes } else { no.to_owned() }))
        };
        match way {
            Way::Test(name) => told(self.tests.get(name).copied(), "ok".to_owned(), "FAILED"),
            Way::Seen(name) => match self.seen.get(name) {
                Some(count) => (Some(true), format!("seen {count} times")),
                None if self.seen.is_empty() => (None, "not run".to_owned()),
                None => (Some(false), "not seen".to_owned()),
            },
            Way::Mutant(name) => {
                let known = self.mutants.iter().find(|fields| fields[1] == *name);
                let found = known.map(|fields| fields[2] != "SURVIVES");
                told(found, "found".to_owned(), "NOT FOUND")
            }
            Way::Later(_) => (None, String::new()),
        }
    }
}

/// The table in Markdown, with the results.
#[must_use]
pub fn table(rows: &[Row], results: &Results) -> String {
    let mut text =
        "| row | what happens | played by | last result |\n|---|---|---|---|\n".to_owned();
    for row in rows {
        let ways: Vec<String> = row
            .ways
            .iter()
            .map(|way| match way {
                Way::Test(name) => format!("`{name}`"),
                Way::Seen(name) => format!("simulator: {name}"),
                Way::Mutant(name) => format!("planted bug {name}"),
                Way::Later(what) => format!("**later**: {what}"),
            })
            .collect();
        let told: Vec<String> = row.ways.iter().map(|way| results.of(way).1).collect();
        let line = [&row.name, &row.what, &ways.join("<br>"), &told.join("<br>")];
        text.push_str(&format!("| {} | {} | {} | {} |\n", line[0], line[1], line[2], line[3]));
    }
    let (mut green, mut red, mut later) = (0, 0, 0);
    for row in rows {
        let told: Vec<Option<bool>> = row.ways.iter().map(|way| results.of(way).0).collect();
        if told.contains(&Some(false)) {
            red += 1;
        } else if told.contains(&Some(true)) {
            green += 1;
        } else if row.ways.iter().all(|way| matches!(way, Way::Later(_))) {
            later += 1;
        }
    }
    let open = rows.len() - green - red - later;
    text.push_str(&format!(
        "\n{} rows: {green} green, {red} red, {later} later, {open} not run.\n",
        rows.len()
    ));
    text
}

/// The planted bugs in Markdown: what killed each, how fast.
#[must_use]
pub fn planted_table(results: &Results) -> String {
    let mut text = "| number | planted | killed by | tried | seconds | check that fired |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for fields in &results.mutants {
        text.push_str(&format!("| {} |\n", fields.join(" | ")));
    }
    let with = |layer: &str| results.mutants.iter().filter(|fields| fields[2] == layer).count();
    let (survive, later) = (with("SURVIVES"), with("later"));
    let dead = results.mutants.len() - survive - later;
    text.push_str(&format!("\n{dead} dead, {survive} survive, {later} later.\n"));
    text
}

/// Rows that are missing, doubled or unknown.
#[must_use]
pub fn gaps(rows: &[Row]) -> Vec<String> {
    let wanted: BTreeSet<String> = wanted().into_iter().collect();
    let mut found = BTreeSet::new();
    let mut gaps = Vec::new();
    for row in rows {
        if !wanted.contains(&row.name) {
            gaps.push(format!("{}: no such row", row.name));
        }
        if !found.insert(row.name.clone()) {
            gaps.push(format!("{}: twice", row.name));
        }
    }
    gaps.extend(
        wanted.difference(&found).map(|row| format!("{row}: neither a test nor a `later`")),
    );
    gaps
}
