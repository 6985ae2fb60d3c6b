use std::collections::BTreeMap;
use std::path::PathBuf;

use super::flag_table::{FLAGS, Flag, Kind, Scope, Section, flag};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    CommandLine,
    /// An environment variable.
    Environment,
    /// `--config-file`.
    File,
}

/// A value as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Not yet interpreted, except that a switch is `true` or `false`.
    pub value: String,
    /// Where from.
    pub source: Source,
}

/// What is wrong with how flags were given.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// No such flag.
    #[error("unknown flag --{name}{}; see --help", near(.nearest.as_deref()))]
    Unknown {
        /// As given.
        name: String,
        /// The most similar flag.
        nearest: Option<String>,
    },
    /// Something that is no flag.
    #[error("{text:?} is not a valid flag{}", after_switch(.behind.as_deref()))]
    NotAFlag {
        /// As given.
        text: String,
        /// The switch it stands behind.
        behind: Option<String>,
    },
    /// The command line ends too early.
    #[error("flag --{0} needs a value")]
    NoValue(String),
    /// A value of the wrong kind.
    #[error("invalid value {value:?} for {whose}: {why}")]
    Value {
        /// As given.
        value: String,
        /// Flag or variable.
        whose: String,
        /// What was expected.
        why: String,
        /// Whether the command line has it.
        on_command_line: bool,
    },
    /// etcd's rule: one place only.
    #[error(
        "conflicting environment variable {0:?} is shadowed by corresponding command-line flag \
         (either unset environment variable or disable flag)"
    )]
    Conflict(String),
    /// The file cannot be read.
    #[error("--config-file {0}: {1}")]
    File(PathBuf, String),
}

impl FlagError {
    /// Whether Go's flag package would have found it: etcd then ends with 2, else with 1.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::NoValue(_) => true,
            Self::Value { on_command_line, .. } => *on_command_line,
            Self::NotAFlag { .. } | Self::Conflict(_) | Self::File(..) => false,
        }
    }
}

/// Flags of etcd 2 that etcd still takes, as switches without effect.
const FORGOTTEN: [&str; 15] = [
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
    "test.coverprofile",
    "test.outputdir",
];

fn near(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean --{name}?"))
}

fn after_switch(switch: Option<&str>) -> String {
    switch.map_or_else(String::new, |name| {
        format!("; a value of --{name} is written with an equals sign: --{name}=true")
    })
}

/// The most similar of `names`, if any is similar at all.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = names.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate));
    let best = scored.min()?;
    (best.0 <= name.len().max(4) / 2).then(|| best.1.to_owned())
}

/// Everything that was given, flag by flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    given: BTreeMap<&'static str, Given>,
    /// Lines to log once logging runs.
    pub warnings: Vec<String>,
}

impl Values {
    /// From the command line behind the program's name, and the environment. A configuration file,
    /// if one is named, takes the place of both (etcd-surface.md 4).
    ///
    /// # Errors
    /// [`FlagError`].
    pub fn collect(
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<Self, FlagError> {
        let mut values = Self::from_command_line(arguments)?;
        let named = values.text("config-file").map(str::to_owned).or_else(|| {
            let variable = environment.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE");
            variable.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        });
        let Some(path) = named else {
            values.add_environment(environment)?;
            return Ok(values);
        };
        let mut from_file = Self::from_file(&path.into())?;
        let others = values.given.keys().filter(|name| **name != "config-file");
        let others: Vec<String> = others.map(|name| format!("--{name}")).collect();
        if !others.is_empty() {
            from_file.warnings.push(format!(
                "{} and every ETCD_ variable have no effect beside --config-file",
                others.join(", ")
            ));
        }
        Ok(from_file)
    }

    fn from_command_line(arguments: &[String]) -> Result<Self, FlagError> {
        let mut values = Self::default();
        let mut rest = arguments.iter();
        let mut last_switch = None;
        while let Some(argument) = rest.next() {
            let text = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
            let Some(text) = text.filter(|text| !text.is_empty()) else {
                return Err(FlagError::NotAFlag { text: argument.clone(), behind: last_switch });
            };
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (text, None),
            };
            last_switch = None;
            if FORGOTTEN.contains(&name) {
                values.warnings.push(format!("--{name} has no effect: it is of etcd 2"));
                continue;
            }
            let found = known(name)?;
            let value = match (value, found.kind) {
                (Some(value), _) => value,
                (None, Kind::Switch) => {
                    last_switch = Some(name.to_owned());
                    "true".to_owned()
                }
                (None, _) => {
                    rest.next().ok_or_else(|| FlagError::NoValue(name.to_owned()))?.clone()
                }
            };
            values.set(found, &value, Source::CommandLine)?;
        }
        Ok(values)
    }

    fn add_environment(&mut self, environment: &[(String, String)]) -> Result<(), FlagError> {
        for (variable, value) in environment {
            let found = FLAGS.iter().find(|flag| flag.variable() == *variable);
            let own = found.is_some_and(|flag| flag.section == Section::Althing);
            match found {
                Some(flag) if self.given.contains_key(flag.name) && !own => {
                    return Err(FlagError::Conflict(variable.clone()));
                }
                // For Althing's own flags the command line simply wins.
                Some(flag) if !value.is_empty() && !self.given.contains_key(flag.name) => {
                    self.set(flag, value, Source::Environment)?;
                }
                Some(_) => {}
                None if variable == "ETCD_UNSUPPORTED_ARCH" => {}
                None if variable.starts_with("ETCD_") => {
                    self.warnings.push(format!("unrecognized environment variable {variable}"));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Notes a value; of several the last counts.
    pub(super) fn set(
        &mut self,
        flag: &'static Flag,
        value: &str,
        source: Source,
    ) -> Result<(), FlagError> {
        let wrong = |why: &str| wrong_value(flag, value, source, why);
        let value = match flag.kind {
            Kind::Switch => match go_bool(value) {
                Some(on) => on.to_string(),
                None => return Err(wrong("expected true or false")),
            },
            Kind::Number => match go_integer(value).and_then(|number| u64::try_from(number).ok()) {
                Some(number) => number.to_string(),
                None => return Err(wrong("expected a whole number from 0")),
            },
            Kind::Integer => {
                match go_integer(value).and_then(|number| i64::try_from(number).ok()) {
                    Some(number) => number.to_string(),
                    None => return Err(wrong("expected a whole number")),
                }
            }
            Kind::OneOf(words) if !words.contains(&value) => {
                return Err(wrong(&format!("expected one of {}", words.join(", "))));
            }
            Kind::Duration if super::duration::go_duration_ns(value).is_none() => {
                return Err(wrong("expected a duration such as 300ms, 5s or 1m30s"));
            }
            _ => value.to_owned(),
        };
        self.given.insert(flag.name, Given { value, source });
        Ok(())
    }

    /// What was given, in the order of the names.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &Given)> {
        self.given.iter().map(|(name, given)| (*name, given))
    }

    /// A value that was given and is not empty.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(|given| given.value.as_str()).filter(|value| !value.is_empty())
    }

    /// A value that was given, or etcd's default.
    #[must_use]
    pub(super) fn text_or_default(&self, name: &'static str) -> &str {
        self.text(name).unwrap_or_else(|| flag(name).map_or("", |flag| flag.default))
    }

    /// Whether a switch is on.
    #[must_use]
    pub(super) fn switch(&self, name: &'static str) -> bool {
        self.text_or_default(name) == "true"
    }

    /// Where a flag's value comes from, if it was given.
    #[must_use]
    pub(super) fn source(&self, name: &str) -> Option<Source> {
        self.given.get(name).map(|given| given.source)
    }

    /// What is wrong with the value of a flag that was given.
    #[must_use]
    pub(super) fn wrong(&self, name: &'static str, why: &str) -> FlagError {
        let found = flag(name).expect("a flag of the table");
        let source = self.source(name).unwrap_or(Source::CommandLine);
        wrong_value(found, self.text_or_default(name), source, why)
    }

    /// A list that was given, or etcd's default; without empty parts.
    #[must_use]
    pub(super) fn list(&self, name: &'static str) -> Vec<String> {
        let parts = self.text_or_default(name).split(',').map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// A number that may be negative, if it was given.
    #[must_use]
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// A number that was given.
    #[must_use]
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// A duration in milliseconds.
    #[must_use]
    pub(super) fn milliseconds(&self, name: &'static str) -> u64 {
        super::duration::go_duration_ns(self.text_or_default(name)).unwrap_or(0) / 1_000_000
    }
}

pub(super) fn wrong_value(flag: &Flag, value: &str, source: Source, why: &str) -> FlagError {
    FlagError::Value {
        value: value.to_owned(),
        whose: match source {
            Source::Environment => flag.variable(),
            Source::CommandLine => format!("--{}", flag.name),
            Source::File => format!("{} in the configuration file", flag.name),
        },
        why: why.to_owned(),
        on_command_line: source == Source::CommandLine,
    }
}

/// Go's words for a switch.
pub(super) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A whole number as Go's flags read it: a sign, then decimal, 0x, 0o, 0b or a bare 0 for octal, with
/// underscores between digits.
fn go_integer(text: &str) -> Option<i128> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = rest.get(..2).unwrap_or("").to_ascii_lowercase();
    let (radix, digits) = match prefix.as_str() {
        "0x" => (16, &rest[2..]),
        "0o" => (8, &rest[2..]),
        "0b" => (2, &rest[2..]),
        _ if rest.len() > 1 && rest.starts_with('0') => (8, &rest[1..]),
        _ => (10, rest),
    };
    // An underscore may follow a prefix or stand between two digits.
    let digits = digits.strip_prefix('_').filter(|_| radix != 10).unwrap_or(digits);
    if digits.split('_').any(str::is_empty) || digits.starts_with(['+', '-']) {
        return None;
    }
    let number = i128::from_str_radix(&digits.replace('_', ""), radix).ok()?;
    Some(if negative { -number } else { number })
}

fn known(name: &str) -> Result<&'static Flag, FlagError> {
    flag(name).ok_or_else(|| FlagError::Unknown {
        name: name.to_owned(),
        nearest: nearest(name, FLAGS.iter().map(|flag| flag.name)),
    })
}

/// The text of `--help`: etcd's layout, which tools search for flags.
#[must_use]
pub fn help() -> String {
    use core::fmt::Write;
    let mut text = String::new();
    let mut section = None;
    for flag in FLAGS {
        if section != Some(flag.section) {
            section = Some(flag.section);
            let _ = write!(text, "\n{}:\n", title(flag.section));
        }
        let default = if flag.default.is_empty() && flag.kind != Kind::Switch {
            " ''".to_owned()
        } else {
            format!(" '{}'", flag.default)
        };
        let _ = writeln!(text, "  --{}{default}", flag.name);
        let _ = match flag.scope {
            Scope::Local | Scope::Admission => writeln!(text, "    {}", flag.help),
            Scope::Voted => writeln!(text, "    {} (Fixed when the network starts.)", flag.help),
            Scope::Ignored(why) => writeln!(text, "    {} (No effect: {why}.)", flag.help),
            Scope::Refused(why) => writeln!(text, "    {} (Refused: {why}.)", flag.help),
        };
    }
    text
}

pub(super) fn title(section: Section) -> &'static str {
    match section {
        Section::Member => "Member",
        Section::Clustering => "Clustering",
        Section::Security => "Security",
        Section::Auth => "Auth",
        Section::Monitoring => "Profiling and Monitoring",
        Section::Logging => "Logging",
        Section::Tracing => "Distributed tracing",
        Section::Features => "Features",
        Section::Unsafe => "Unsafe feature",
        Section::Althing => "Althing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn collect(texts: &[&str], variables: &[(&str, &str)]) -> Result<Values, FlagError> {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Values::collect(&arguments(texts), &variables)
    }

    #[test]
    fn flags_are_written_in_all_of_gos_ways() {
        let values = collect(
            &[
                "--name=a",
                "--data-dir",
                "d",
                "-client-cert-auth",
                "--pre-vote=F",
                "--name",
                "b",
                "--max-txn-ops=0x80",
                "--quota-backend-bytes=-1",
                "--vv",
            ],
            &[],
        )
        .expect("good flags");
        assert_eq!(values.number("max-txn-ops"), Some(128));
        assert_eq!(values.integer("quota-backend-bytes"), Some(-1));
        assert_eq!(values.warnings, ["--vv has no effect: it is of etcd 2"]);
        assert_eq!(values.text("name"), Some("b"), "the last counts");
        assert_eq!(values.text("data-dir"), Some("d"));
        assert_eq!((values.switch("client-cert-auth"), values.switch("pre-vote")), (true, false));
    }

    #[test]
    fn bad_flags_say_what_is_wrong_and_what_to_do() {
        type Row = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str);
        let table: [Row; 14] = [
            (&["--listen-client-url=x"], &[], "did you mean --listen-client-urls?"),
            (&["--dta-dir=x"], &[], "did you mean --data-dir?"),
            (&["--zzzzzzzzzzzz=x"], &[], "unknown flag --zzzzzzzzzzzz; see --help"),
            (&["--client-cert-auth", "true"], &[], "--client-cert-auth=true"),
            (&["serve"], &[], "\"serve\" is not a valid flag"),
            (&["--name"], &[], "--name needs a value"),
            (&["--max-txn-ops=many"], &[], "a whole number"),
            (&["--max-txn-ops=-1"], &[], "a whole number from 0"),
            (&["--max-wals=08"], &[], "a whole number"),
            (&["--initial-cluster-state=old"], &[], "one of new, existing"),
            (&["--corrupt-check-time=5"], &[], "300ms, 5s"),
            (&["--auto-tls=maybe"], &[], "true or false"),
            (&[], &[("ETCD_MAX_WALS", "-1")], "ETCD_MAX_WALS"),
            (&["--name=a"], &[("ETCD_NAME", "a")], "\"ETCD_NAME\" is shadowed by corresponding"),
        ];
        for (flags, variables, expected) in table {
            let why = collect(flags, variables).expect_err(expected).to_string();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn variables_set_flags_and_unknown_ones_warn() {
        let variables = [
            ("ETCD_NAME", "x"),
            ("ETCD_NAEM", "y"),
            ("ETCD_DATA_DIR", ""),
            ("ALTHING_HOME", "env"),
            ("ETCDCTL_API", "3"),
        ];
        let values = collect(&["--home=flag"], &variables).expect("good variables");
        assert_eq!((values.text("name"), values.text("home")), (Some("x"), Some("flag")));
        assert_eq!(values.text("data-dir"), None, "an empty variable is none");
        assert_eq!(values.warnings, ["unrecognized environment variable ETCD_NAEM"]);
    }

    #[test]
    fn the_table_is_well_formed() {
        let mut names: Vec<&str> = FLAGS.iter().map(|flag| flag.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "no flag stands twice");
        for flag in FLAGS {
            assert!(!flag.help.is_empty() && flag.help.ends_with('.'), "{}", flag.name);
            let mut values = Values::default();
            if !flag.default.is_empty() && flag.default != "math.MaxUint32" {
                values.set(flag, flag.default, Source::CommandLine).expect(flag.name);
            }
        }
        assert!(help().contains("\n  --unsafe-no-fsync"), "envtest looks for it");
    }
}
