use std::path::PathBuf;

use serde_json::Value;

use super::flag_table::{FLAGS, Flag, Kind, flag};
use super::flags::{FlagError, Source, Values, nearest, wrong_value};

/// etcd's sections whose fields are flags under another name.
const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "client-transport-security",
        &[
            ("cert-file", "cert-file"),
            ("key-file", "key-file"),
            ("client-cert-file", "client-cert-file"),
            ("client-key-file", "client-key-file"),
            ("client-cert-auth", "client-cert-auth"),
            ("trusted-ca-file", "trusted-ca-file"),
            ("auto-tls", "auto-tls"),
            ("allowed-cn", "client-cert-allowed-cn"),
            ("allowed-hostname", "client-cert-allowed-hostname"),
        ],
    ),
    (
        "peer-transport-security",
        &[
            ("cert-file", "peer-cert-file"),
            ("key-file", "peer-key-file"),
            ("client-cert-file", "peer-client-cert-file"),
            ("client-key-file", "peer-client-key-file"),
            ("client-cert-auth", "peer-client-cert-auth"),
            ("trusted-ca-file", "peer-trusted-ca-file"),
            ("auto-tls", "peer-auto-tls"),
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
            ("skip-client-san-verification", "peer-skip-client-san-verification"),
        ],
    ),
    (
        "socket-options",
        &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")],
    ),
    ("discovery-config", &[("token", "discovery-token")]),
];

/// Flags that are no key of etcd's file (`server/embed/config.go`: their fields have another key, in a
/// section, or none). etcd reads over them.
const NOT_IN_FILE: &[&str] = &[
    "socket-reuse-port",
    "socket-reuse-address",
    "raft-read-timeout",
    "raft-write-timeout",
    "config-file",
    "discovery",
    "discovery-token",
    "discovery-endpoints",
    "discovery-dial-timeout",
    "discovery-request-timeout",
    "discovery-keepalive-time",
    "discovery-keepalive-timeout",
    "discovery-insecure-transport",
    "discovery-insecure-skip-tls-verify",
    "discovery-cert",
    "discovery-key",
    "discovery-cacert",
    "discovery-user",
    "discovery-password",
    "discovery-fallback",
    "discovery-proxy",
    "cert-file",
    "key-file",
    "client-cert-auth",
    "client-cert-file",
    "client-key-file",
    "client-crl-file",
    "client-cert-allowed-cn",
    "client-cert-allowed-hostname",
    "trusted-ca-file",
    "auto-tls",
    "peer-cert-file",
    "peer-key-file",
    "peer-client-cert-auth",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-trusted-ca-file",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
    "peer-auto-tls",
    "peer-crl-file",
    "peer-skip-client-san-verification",
];

/// Keys whose value etcd takes as a list only.
const LISTS: &[&str] = &["log-outputs", "cipher-suites"];

impl Values {
    /// From etcd's YAML (or JSON) file: top-level keys are flags, durations whole nanoseconds, TLS in
    /// sections. An unknown key warns: etcd reads over it, so working files may have some.
    pub(super) fn from_file(path: &PathBuf) -> Result<Self, FlagError> {
        let failed = |why: String| FlagError::File(path.clone(), why);
        let text = std::fs::read_to_string(path).map_err(|why| failed(why.to_string()))?;
        Self::from_yaml(&text).map_err(|why| match why {
            FlagError::File(_, why) => failed(why),
            other => other,
        })
    }

    /// From the text of such a file.
    ///
    /// # Errors
    /// [`FlagError`].
    pub fn from_yaml(text: &str) -> Result<Self, FlagError> {
        let failed = |why: String| FlagError::File(PathBuf::new(), why);
        let top: Value = serde_saphyr::from_str(text).map_err(|why| failed(why.to_string()))?;
        let mut values = Self::default();
        let fields = match top {
            Value::Null => return Ok(values),
            Value::Object(fields) => fields,
            _ => return Err(failed("expected a map of settings".to_owned())),
        };
        for (key, value) in &fields {
            match SECTIONS.iter().find(|(section, _)| section == key) {
                Some((section, names)) => values.section(section, names, value)?,
                None => match flag(key).filter(|found| is_key(found)) {
                    Some(found) => values.set_from_file(found, value)?,
                    None => {
                        let keys = FLAGS.iter().filter(|flag| is_key(flag));
                        values.warn_unknown(key, keys.map(|flag| flag.name));
                    }
                },
            }
        }
        Ok(values)
    }

    fn section(
        &mut self,
        section: &str,
        names: &[(&'static str, &'static str)],
        value: &Value,
    ) -> Result<(), FlagError> {
        let fields = match value {
            Value::Null => return Ok(()),
            Value::Object(fields) => fields,
            _ => return Err(FlagError::File(PathBuf::new(), format!("invalid {section}"))),
        };
        for (key, value) in fields {
            match names.iter().find(|(field, _)| field == key) {
                Some((_, name)) => {
                    let found = flag(name).expect("sections name flags of the table");
                    self.set_from_file(found, value)?;
                }
                None => self.warn_unknown(key, names.iter().map(|(field, _)| *field)),
            }
        }
        Ok(())
    }

    fn warn_unknown(&mut self, key: &str, names: impl Iterator<Item = &'static str>) {
        let hint = nearest(key, names).map_or_else(String::new, |n| format!("; did you mean {n}?"));
        self.warnings.push(format!("unknown key {key} in the configuration file{hint}"));
    }

    /// Strict where Go's `json.Unmarshal` is: a duration is a number, and so is a number. Where it wants
    /// text, etcd's YAML reader turns numbers and switches into it.
    fn set_from_file(&mut self, flag: &'static Flag, value: &Value) -> Result<(), FlagError> {
        let wrong = |why: &str| {
            let shown = value.to_string();
            Err(wrong_value(flag, shown.trim_matches('"'), Source::File, why))
        };
        let text = match (value, flag.kind) {
            (Value::Null, _) => return Ok(()),
            (Value::Number(number), Kind::Duration) => format!("{number}ns"),
            (_, Kind::Duration) => return wrong("expected whole nanoseconds, such as 5000000000"),
            (Value::String(_), Kind::Number | Kind::Integer) => return wrong("expected a number"),
            // YAML 1.1's words, which etcd's reader takes.
            (Value::String(text), Kind::Switch) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" => "true".to_owned(),
                "no" | "off" | "n" => "false".to_owned(),
                _ => return wrong("expected true or false"),
            },
            (Value::String(_), Kind::List) if LISTS.contains(&flag.name) => {
                return wrong("expected a list");
            }
            (Value::Object(_), _) => return wrong("expected no map"),
            (Value::Array(_), kind) if kind != Kind::List => return wrong("expected no list"),
            (Value::Array(items), _) => {
                let texts = items.iter().map(|item| match item {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
                texts.collect::<Vec<_>>().join(",")
            }
            (Value::String(text), _) => text.clone(),
            (other, _) => other.to_string(),
        };
        if text.is_empty() {
            return Ok(());
        }
        self.set(flag, &text, Source::File)
    }
}

fn is_key(flag: &Flag) -> bool {
    !NOT_IN_FILE.contains(&flag.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_file_sets_flags_and_its_sections_too() {
        let text = "
name: acme
listen-client-urls: https://127.0.0.1:2379,https://10.0.0.1:2379
watch-progress-notify-interval: 5000000000
max-request-bytes: 1048576
strict-reconfig-check: false
log-outputs: [stderr, /var/log/etcd.log]
cert-file: /not/read.crt
discovery:
client-transport-security:
  cert-file: /pki/server.crt
  client-cert-auth: true
  allowed-cn: [apiserver]
peer-transport-security:
  allowed-hostname: [a, b]
quota-backend-byte: 1
";
        let values = Values::from_yaml(text).expect("a good file");
        assert_eq!(values.text("name"), Some("acme"));
        assert_eq!(values.milliseconds("watch-progress-notify-interval"), 5000);
        assert_eq!(values.number("max-request-bytes"), Some(1_048_576));
        assert_eq!(values.text("log-outputs"), Some("stderr,/var/log/etcd.log"));
        assert_eq!(values.text("cert-file"), Some("/pki/server.crt"));
        assert!(values.switch("client-cert-auth") && !values.switch("strict-reconfig-check"));
        assert_eq!(values.text("peer-cert-allowed-hostname"), Some("a,b"));
        assert_eq!(values.text("client-cert-allowed-cn"), Some("apiserver"));
        assert_eq!(values.text("discovery"), None);
        let warnings = values.warnings.join("\n");
        assert_eq!(values.warnings.len(), 3, "{warnings}");
        assert!(warnings.contains("unknown key cert-file"), "a flag, but in a section only");
        assert!(warnings.contains("did you mean quota-backend-bytes?"));
    }

    #[test]
    fn bad_files_are_refused() {
        for bad in [
            "- a\n- b\n",
            "name: [",
            "client-transport-security: yes please",
            "max-txn-ops: many",
            "max-txn-ops: '5'",
            "watch-progress-notify-interval: 5s",
            "watch-progress-notify-interval: '5000'",
            "log-outputs: stderr",
            "name: [a]",
            "name: {}",
            "client-transport-security:\n  auto-tls: perhaps\n",
        ] {
            assert!(Values::from_yaml(bad).is_err(), "{bad}");
        }
        assert_eq!(Values::from_yaml("").expect("an empty file"), Values::default());
    }
}
