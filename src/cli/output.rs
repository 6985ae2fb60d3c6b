//! Exit codes and small things for people's eyes.

use core::fmt;

/// Prints a line. A reader that went away (`althing status | head`) is no error.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        if cfg!(test) {
            // Captured by the test harness.
            println!($($argument)*);
        } else {
            let _ = writeln!(std::io::stdout(), $($argument)*);
        }
    }};
}
pub(super) use say;

/// Why a command failed, with its exit code (ecosystem.md 2).
#[derive(Debug)]
pub(super) struct Failure {
    /// 1 failed, 2 wrong usage, 3 something needed is missing.
    pub code: u8,
    /// What happened.
    pub error: anyhow::Error,
}

impl Failure {
    /// The command was called in a way that cannot work.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, error: error.into() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: 1, error: error.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

/// How a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// A key as text: as it is if printable, else with escapes, so that no terminal obeys it.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}
