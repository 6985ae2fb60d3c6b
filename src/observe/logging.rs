use core::fmt::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// An object per line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default)]
pub struct LogSettings {
    /// A level of etcd's (`debug`, `info`, `warn`, `error`, `dpanic`, `panic`, `fatal`) or a filter
    /// per module (`info,althing::net=debug`). Empty means `info`.
    pub filter: String,
    /// How lines are written, to standard error.
    pub format: LogFormat,
}

/// Why logging could not start.
#[derive(Debug)]
pub enum LoggingError {
    /// The filter cannot be read.
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A subscriber is installed already.
    AlreadyStarted,
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter { filter, reason } => write!(
                f,
                "--log-level {filter:?} cannot be read ({reason}); give a level such as info, or a \
                 level per module such as info,althing::net=debug"
            ),
            Self::AlreadyStarted => write!(f, "logging was already started"),
        }
    }
}

impl std::error::Error for LoggingError {}

/// Starts logging to standard error for the whole process.
///
/// # Errors
/// The filter cannot be read; logging was started before.
pub fn start_logging(settings: &LogSettings) -> Result<(), LoggingError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&settings.filter)?)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    let started = match settings.format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
        LogFormat::Text => {
            let fields = debug_fn(|writer, field, value| {
                write_field(writer, field.name(), &format!("{value:?}"))
            });
            builder.fmt_fields(fields.delimited(" ")).try_init()
        }
    };
    started.map_err(|_| LoggingError::AlreadyStarted)
}

fn filter(text: &str) -> Result<EnvFilter, LoggingError> {
    // zap's levels above error, which etcd's --log-level accepts.
    let directives = match text.trim() {
        "" => "info",
        "dpanic" | "panic" | "fatal" => "error",
        other => other,
    };
    EnvFilter::try_new(directives).map_err(|error| LoggingError::Filter {
        filter: text.to_owned(),
        reason: error.to_string(),
    })
}

fn write_field(writer: &mut Writer<'_>, name: &str, value: &str) -> fmt::Result {
    if name != "message" {
        write!(writer, "{name}=")?;
    }
    write_escaped(writer, value)
}

/// Keys, names and addresses are hostile text: nothing of it may start a new line, move the cursor
/// or change the direction of the text.
fn write_escaped(writer: &mut impl Write, text: &str) -> fmt::Result {
    text.chars().try_for_each(|character| match character {
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            write!(writer, "{}", character.escape_unicode())
        }
        _ if character.is_control() => write!(writer, "{}", character.escape_default()),
        _ => writer.write_char(character),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_on_its_line() {
        let mut out = String::new();
        write_escaped(&mut out, "a\nb\u{1b}[31mc\u{202e}d é").expect("a string takes everything");
        assert_eq!(out, "a\\nb\\u{1b}[31mc\\u{202e}d é");
    }

    #[test]
    fn levels_of_etcd_and_filters_per_module_are_understood() {
        for good in ["", "info", "debug", "fatal", "warn,althing::net=debug"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        let error = filter("info,=??=x").expect_err("no filter").to_string();
        assert!(error.contains("--log-level"), "{error}");
    }
}
