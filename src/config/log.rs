use std::path::PathBuf;

use serde_json::Value;

use super::flags::Values;
use super::settings::{SettingsError, invalid};

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A level, or a level per module.
    pub filter: String,
    /// JSON lines, else text.
    pub json: bool,
    /// Where lines go; never empty.
    pub outputs: Vec<LogOutput>,
    /// When the one file among them is put aside.
    pub rotation: Option<LogRotation>,
}

/// A place for lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error, which under systemd is the journal.
    Stderr,
    /// Standard output.
    Stdout,
    /// Appended to.
    File(PathBuf),
}

/// `--log-rotation-config-json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRotation {
    /// A file above this is put aside.
    pub bytes_max: u64,
    /// Files put aside are removed after so many days; 0 for never.
    pub days_max: u32,
    /// So many files put aside are kept; 0 for all.
    pub files_max: u32,
    /// And compressed.
    pub compress: bool,
}

/// etcd's checks (`server/embed/config_logging.go`).
pub(super) fn log(values: &Values) -> Result<LogSettings, SettingsError> {
    match values.text_or_default("logger") {
        "zap" => {}
        "capnslog" => return invalid("--logger=capnslog is removed in v3.5"),
        other => return invalid(format!("unknown logger option {other:?}")),
    }
    let json = match values.text_or_default("log-format") {
        "json" => true,
        "console" => false,
        other => return invalid(format!("--log-format is {other:?}; it is json or console")),
    };
    let mut names = values.list("log-outputs");
    names.sort();
    names.dedup();
    if names.len() > 1 && names.iter().any(|name| name == "default") {
        return invalid("multi logoutput for \"default\" is not supported yet");
    }
    let mut outputs: Vec<LogOutput> = names.iter().map(|name| output(name)).collect();
    outputs.dedup();
    let rotation = if values.switch("enable-log-rotation") {
        Some(rotation(values.text_or_default("log-rotation-config-json"), &outputs)?)
    } else {
        None
    };
    let filter = values.text_or_default("log-level").to_owned();
    Ok(LogSettings { filter, json, outputs, rotation })
}

fn output(name: &str) -> LogOutput {
    match name {
        "default" | "stderr" | "systemd/journal" => LogOutput::Stderr,
        "stdout" => LogOutput::Stdout,
        path => LogOutput::File(path.into()),
    }
}

fn rotation(text: &str, outputs: &[LogOutput]) -> Result<LogRotation, SettingsError> {
    let files = outputs.iter().filter(|output| matches!(output, LogOutput::File(_))).count();
    if files != 1 {
        return invalid(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        );
    }
    let wrong = |why: String| SettingsError::Invalid(format!("--log-rotation-config-json: {why}"));
    let fields = match serde_json::from_str(text).map_err(|why| wrong(why.to_string()))? {
        Value::Object(fields) => fields,
        _ => return Err(wrong("expected an object".to_owned())),
    };
    let number = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| wrong(format!("{name} is not a whole number"))),
    };
    let megabytes = match number("maxsize")? {
        0 => 100,
        given => given,
    };
    let compress = match fields.get("compress") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(compress)) => *compress,
        Some(_) => return Err(wrong("compress is not true or false".to_owned())),
    };
    Ok(LogRotation {
        bytes_max: u64::from(megabytes) << 20,
        days_max: number("maxage")?,
        files_max: number("maxbackups")?,
        compress,
    })
}
