//! The tests of the tests: bugs put in one at a time, and which layer kills each, by which check,
//! how fast (docs/testing.md, "Planted bugs").
//!
//! A check that fires without the bug too kills nothing: what killed is repeated without it. Budgets
//! are counts, never times. A bug that no layer finds within its budget is a defect of the tests.

use std::time::Instant;

use althing::planted::Bug;

use crate::protocol_model::cases::{Case, PLANTED};
use crate::sim::plan::Mutant;

mod hunt;
pub mod table;

use hunt::Hunter;
use table::{LATER, Plant, ROWS, Row};

/// How a bug died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Which layer of the tests killed it.
    pub layer: &'static str,
    /// Seeds, states or tests it took.
    pub tried: u64,
    /// The check that fired.
    pub check: String,
}

/// Where a plant's name is known.
pub(crate) enum Place {
    /// In production code, compiled in with the feature `planted`.
    Production(Bug),
    /// In the simulator's shell.
    Shell(Mutant),
    /// In the protocol model.
    Model(&'static Case),
}

impl Place {
    /// None if nothing has this name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let production = Bug::ALL.iter().find(|(known, _)| *known == name);
        let shell = || Mutant::ALL.iter().find(|(known, _)| *known == name);
        let model = || PLANTED.iter().find(|case| case.name == name);
        production
            .map(|(_, bug)| Self::Production(*bug))
            .or_else(|| shell().map(|(_, mutant)| Self::Shell(*mutant)))
            .or_else(|| model().map(Self::Model))
    }
}

/// Plays against all bugs, or against those named in `only`; what went wrong.
#[must_use]
pub fn play(only: &[String]) -> Vec<String> {
    let begun = Instant::now();
    let mut wrong: Vec<String> = Vec::new();
    for one in only {
        let named =
            |row: &Row| row.number == one || row.plants.iter().any(|plant| plant.name == one);
        if !ROWS.iter().any(named) {
            wrong.push(format!("there is no bug {one}"));
        }
    }
    let (mut bugs, mut left_out) = (0, 0);
    let mut hunter = Hunter::default();
    for row in ROWS {
        let wanted = |plant: &&Plant| {
            only.is_empty() || only.iter().any(|one| one == plant.name || one == row.number)
        };
        for plant in row.plants.iter().filter(wanted) {
            let place = Place::of(plant.name).expect("tidy checks the table's names");
            if matches!(place, Place::Production(_)) && !cfg!(feature = "planted") {
                left_out += 1;
                continue;
            }
            bugs += 1;
            let begun = Instant::now();
            let death = hunter.kill(plant, &place);
            let survives = || Death { layer: "SURVIVES", tried: 0, check: row.what.to_owned() };
            if death.is_none() {
                wrong.push(plant.name.to_owned());
            }
            let Death { layer, tried, check } = death.unwrap_or_else(survives);
            let check: String = check.replace('|', "/").chars().take(160).collect();
            let seconds = begun.elapsed().as_secs_f64();
            let name = plant.name;
            println!(
                "planted {} | {name} | {layer} | {tried} | {seconds:.1} | {check}",
                row.number
            );
        }
        if let Some((_, what)) = LATER.iter().find(|(number, _)| *number == row.number)
            && (only.is_empty() || only.iter().any(|one| one == row.number))
        {
            println!("planted {} | {} | later | 0 | 0.0 | {what}", row.number, row.what);
        }
    }
    if left_out > 0 {
        println!("{left_out} bugs in production code left out: build with --features planted");
    }
    wrong.extend(hunter.found_without_a_bug());
    println!(
        "{bugs} planted bugs, {} wrong {wrong:?}, {:.0} s",
        wrong.len(),
        begun.elapsed().as_secs_f64()
    );
    wrong
}

/// What the table lacks, has twice or cannot name.
#[must_use]
pub fn gaps() -> Vec<String> {
    let mut gaps = Vec::new();
    let listed = |number: &str| ROWS.iter().filter(|row| row.number == number).count();
    for number in (1..=44).map(|at| format!("M{at}")) {
        if listed(&number) != 1 {
            gaps.push(format!("{number} stands {} times in the table", listed(&number)));
        }
    }
    for row in ROWS {
        let later = LATER.iter().any(|(number, _)| *number == row.number);
        if row.plants.is_empty() != later {
            gaps.push(format!("{} is planted nowhere, or planted and `later`", row.number));
        }
        for plant in row.plants {
            if Place::of(plant.name).is_none() || plant.hunts.is_empty() {
                gaps.push(format!(
                    "{}: there is no {}, or nothing hunts it",
                    row.number, plant.name
                ));
            }
        }
    }
    let production = Bug::ALL.iter().map(|(name, _)| *name);
    let shell = Mutant::ALL.iter().map(|(name, _)| *name);
    for name in production.chain(shell).chain(PLANTED.iter().map(|case| case.name)) {
        let times =
            ROWS.iter().flat_map(|row| row.plants).filter(|plant| plant.name == name).count();
        if times != 1 {
            gaps.push(format!("{name} is planted and stands {times} times in the table"));
        }
    }
    gaps
}

/// Tests that the table names.
#[must_use]
pub fn tests() -> Vec<&'static str> {
    let hunts = ROWS.iter().flat_map(|row| row.plants).flat_map(|plant| plant.hunts);
    let test = |hunt: &table::Hunt| match hunt {
        table::Hunt::Library(name) | table::Hunt::Prune(name) => Some(*name),
        _ => None,
    };
    hunts.filter_map(test).collect()
}
