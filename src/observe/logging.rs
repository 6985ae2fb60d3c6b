use core::fmt::{self, Write};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use file_rotate::compression::Compression;
use file_rotate::suffix::{AppendTimestamp, DateFrom, FileLimit};
use file_rotate::{ContentLimit, FileRotate};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
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
    /// How lines are written.
    pub format: LogFormat,
    /// Where to; empty means standard error.
    pub outputs: Vec<LogOutput>,
}

/// A place for log lines.
#[derive(Clone, Debug)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
    /// A file, put aside when it is full.
    Rotated(PathBuf, Rotation),
}

/// When a log file is put aside, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// A file above this is put aside.
    pub bytes_max: u64,
    /// Files put aside are removed after so many days; 0 for never.
    pub days_max: u32,
    /// So many of them are kept; 0 for all. Ignored beside `days_max`.
    pub files_max: u32,
    /// And compressed.
    pub compress: bool,
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
    /// A log file cannot be written.
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
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
            Self::File { path, error } => {
                write!(f, "--log-outputs {} cannot be written: {error}", path.display())
            }
            Self::AlreadyStarted => write!(f, "logging was already started"),
        }
    }
}

impl std::error::Error for LoggingError {}

/// Every line goes to all of them.
#[derive(Clone)]
struct Outputs(Arc<Vec<Mutex<Box<dyn io::Write + Send>>>>);

impl Outputs {
    fn open(settings: &LogSettings) -> Result<Self, LoggingError> {
        let open = |output: &LogOutput| -> Result<Mutex<Box<dyn io::Write + Send>>, LoggingError> {
            Ok(Mutex::new(match output {
                LogOutput::Stderr => Box::new(io::stderr()),
                LogOutput::Stdout => Box::new(io::stdout()),
                LogOutput::File(path) => Box::new(appended(path)?),
                LogOutput::Rotated(path, rotation) => {
                    // Tried first: the rotation would panic over a path that cannot be written.
                    appended(path)?;
                    Box::new(rotated(path, rotation))
                }
            }))
        };
        let outputs = match settings.outputs.as_slice() {
            [] => vec![open(&LogOutput::Stderr)?],
            given => given.iter().map(open).collect::<Result<_, _>>()?,
        };
        Ok(Self(Arc::new(outputs)))
    }
}

fn appended(path: &Path) -> Result<std::fs::File, LoggingError> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(|error| LoggingError::File { path: path.to_owned(), error })
}

fn rotated(path: &Path, rotation: &Rotation) -> FileRotate<AppendTimestamp> {
    let limit = match (rotation.days_max, rotation.files_max) {
        (0, 0) => FileLimit::Unlimited,
        (0, files) => FileLimit::MaxFiles(files as usize),
        (days, _) => FileLimit::Age(chrono::Duration::days(days.into())),
    };
    let compression = if rotation.compress { Compression::OnRotate(0) } else { Compression::None };
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    FileRotate::new(
        path,
        AppendTimestamp::with_format("%Y-%m-%dT%H-%M-%S", limit, DateFrom::Now),
        ContentLimit::BytesSurpassed(usize::try_from(rotation.bytes_max).unwrap_or(usize::MAX)),
        compression,
        Some(options),
    )
}

impl io::Write for &Outputs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for output in self.0.iter() {
            // A full disk or a closed pipe must not stop the server, nor the other outputs.
            let _lost = output.lock().unwrap_or_else(PoisonError::into_inner).write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Outputs {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// Starts logging for the whole process.
///
/// # Errors
/// The filter cannot be read, a file cannot be written; logging was started before.
pub fn start_logging(settings: &LogSettings) -> Result<(), LoggingError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&settings.filter)?)
        .with_ansi(false)
        .with_writer(Outputs::open(settings)?);
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
    let wrong = |reason: String| LoggingError::Filter { filter: text.to_owned(), reason };
    let lower = text.trim().to_lowercase();
    // zap's levels above error, which etcd's --log-level accepts.
    let directives = match lower.as_str() {
        "" => "info",
        "dpanic" | "panic" | "fatal" => "error",
        "trace" | "debug" | "info" | "warn" | "error" | "off" => &lower,
        // Alone it would be the name of a module.
        word if !word.contains(['=', ',']) => return Err(wrong("unrecognized level".to_owned())),
        _ => text.trim(),
    };
    EnvFilter::try_new(directives).map_err(|error| wrong(error.to_string()))
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
