use std::path::PathBuf;

use super::auth::{AuthSettings, auth};
use super::client_tls::{ClientTls, client_tls};
use super::duration::go_duration_ns;
use super::flag_table::{Scope, flag};
use super::flags::{FlagError, Source, Values, go_bool};
use super::log::{LogSettings, log};
use super::peer_tls::{PeerTls, peer_tls};
use super::urls::{ListenUrl, UrlError};
use super::voted_flags::{election_timeout, quota, within};
use crate::chain::Parameters;

/// Everything `serve` needs to know, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--name`; with a genesis the member's name takes its place.
    pub name: String,
    /// Log and checkpoints.
    pub data_dir: PathBuf,
    /// The file all organisations signed; without one this is a network of one.
    pub genesis: Option<PathBuf>,
    /// Keys and certificates.
    pub home: Option<PathBuf>,
    /// Takes key files that others could read.
    pub allow_loose_permissions: bool,
    /// Towards clients.
    pub client: ClientSettings,
    /// Towards other replicas.
    pub peer: PeerSettings,
    /// How a network of one owner starts.
    pub bootstrap: Bootstrap,
    /// How long blocks are kept, in block time; 0 for ever.
    pub history_retention_ms: u64,
    /// This replica orders compactions by this rule.
    pub auto_compaction: AutoCompaction,
    /// How to log.
    pub log: LogSettings,
    /// `--unsafe-no-fsync`: nothing waits for the disk. Only a replica that is alone may.
    pub unsafe_no_fsync: bool,
    /// `--force-new-cluster`, which a replica that is alone need not do anything for.
    pub force_new_cluster: bool,
    /// To be logged, one line each, once logging runs.
    pub warnings: Vec<String>,
}

/// Towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// gRPC, and HTTP unless `listen_http` is there. Empty: to be taken from the genesis.
    pub listen: Vec<ListenUrl>,
    /// HTTP only.
    pub listen_http: Vec<ListenUrl>,
    /// /metrics, /health, /livez, /readyz without a client certificate.
    pub listen_metrics: Vec<ListenUrl>,
    /// As given; empty: to be taken from the genesis.
    pub advertise: Vec<String>,
    /// For every https listener.
    pub tls: ClientTls,
    /// Largest request this replica admits; the network's parameter bounds it.
    pub request_bytes_max: Option<u32>,
    /// Most operations of a transaction this replica admits; the network's parameter bounds it.
    pub txn_ops_max: Option<u32>,
    /// Streams per connection, if given.
    pub streams_max: Option<u32>,
    /// Ping idle clients; 0 for never.
    pub keepalive_interval_ms: u64,
    /// Time to answer.
    pub keepalive_timeout_ms: u64,
    /// Between progress notifications.
    pub watch_progress_ms: u64,
    /// Whether JSON over HTTP is answered under `/v3`.
    pub rest: bool,
    /// How users prove themselves.
    pub auth: AuthSettings,
    /// `--metrics=extensive`: how long calls take.
    pub metrics_extensive: bool,
    /// A call that takes longer is logged; 0 for none.
    pub slow_request_ms: u64,
    /// Hosts that requests without TLS may name; empty for any.
    pub host_whitelist: Vec<String>,
    /// Origins that CORS headers allow; empty for any.
    pub cors: Vec<String>,
}

/// Towards other replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// Empty: to be taken from the genesis.
    pub listen: Vec<ListenUrl>,
    /// For a network of one owner: where others would find this replica.
    pub advertise: Vec<String>,
    /// For the https URLs of one.
    pub tls: PeerTls,
}

/// How a network of one owner starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// NAME=URL of each member as given; empty if not given.
    pub members: Vec<(String, String)>,
    /// `--initial-cluster-token`.
    pub token: String,
    /// `--initial-cluster-state=existing`.
    pub existing: bool,
    /// `--strict-reconfig-check`.
    pub strict_reconfiguration: bool,
    /// `--max-learners`.
    pub learners_max: usize,
    /// `--quota-backend-bytes`.
    pub quota_bytes: Option<u64>,
    /// `--election-timeout`.
    pub view_timeout_ms: Option<u64>,
}

/// Which history to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// None by itself.
    Off,
    /// What is older than this.
    Periodic {
        /// Milliseconds.
        keep_ms: u64,
    },
    /// All but the newest.
    Revisions {
        /// How many stay.
        keep: u64,
    },
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// With how a flag was given.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// With a URL.
    #[error("--{0}: {1}")]
    Url(&'static str, UrlError),
    /// With a URL on the command line, which etcd's flags refuse at once.
    #[error("invalid value for --{0}: {1}")]
    UrlFlag(&'static str, UrlError),
    /// With what a flag asks for.
    #[error("--{name} is not supported: {why}")]
    Refused {
        /// The flag.
        name: &'static str,
        /// Why.
        why: &'static str,
    },
    /// With how flags stand together.
    #[error("{0}")]
    Invalid(String),
}

pub(super) fn invalid<T>(why: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError::Invalid(why.into()))
}

impl SettingsError {
    /// Whether etcd's flags would have refused it while they were read: it ends with 2 then.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Flag(error) => error.is_usage(),
            Self::UrlFlag(..) => true,
            Self::Url(..) | Self::Refused { .. } | Self::Invalid(_) => false,
        }
    }
}

impl Settings {
    /// From the command line behind `serve`, and the environment.
    ///
    /// # Errors
    /// [`SettingsError`], the first one found.
    pub fn parse(
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<Self, SettingsError> {
        Self::from_values(Values::collect(arguments, environment)?)
    }

    /// Checks what was given.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn from_values(values: Values) -> Result<Self, SettingsError> {
        let mut warnings = values.warnings.clone();
        warnings.extend(check_scopes(&values)?);
        let home = values.text("home").map(PathBuf::from);
        let genesis = values.text("genesis").map(PathBuf::from);
        let genesis = genesis.or_else(|| home.as_ref().map(|home| home.join("genesis.json")));
        if genesis.is_some() && home.is_none() {
            return invalid("--genesis needs --home, the directory with this replica's keys");
        }
        let name = values.text_or_default("name").to_owned();
        let data_dir = values.text("data-dir").map(PathBuf::from);
        let data_dir = match (data_dir, &genesis) {
            (Some(given), _) => given,
            (None, Some(_)) => return invalid("--genesis needs --data-dir, where the log lies"),
            (None, None) => format!("{name}.etcd").into(),
        };
        other_checks(&values, &mut warnings)?;
        Ok(Self {
            name,
            data_dir,
            allow_loose_permissions: values.switch("allow-loose-permissions"),
            client: client(&values, genesis.is_some(), &mut warnings)?,
            peer: peer(&values, genesis.is_some(), &mut warnings)?,
            bootstrap: Bootstrap {
                members: initial_cluster(&values)?,
                token: values.text_or_default("initial-cluster-token").to_owned(),
                existing: values.text_or_default("initial-cluster-state") == "existing",
                strict_reconfiguration: values.switch("strict-reconfig-check"),
                learners_max: usize::try_from(values.number("max-learners").unwrap_or(1))
                    .unwrap_or(usize::MAX),
                quota_bytes: quota(&values),
                view_timeout_ms: election_timeout(&values, &mut warnings)?,
            },
            history_retention_ms: values.milliseconds("history-retention"),
            auto_compaction: auto_compaction(&values)?,
            log: log(&values)?,
            unsafe_no_fsync: values.switch("unsafe-no-fsync"),
            force_new_cluster: values.switch("force-new-cluster"),
            genesis,
            home,
            warnings,
        })
    }
}

/// etcd's gates; what they switch is built differently here, but a wrong name stays an error.
const GATES: [&str; 11] = [
    "AllAlpha",
    "AllBeta",
    "CompactHashCheck",
    "FastLeaseKeepAlive",
    "InitialCorruptCheck",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
    "PriorityRequest",
    "SetMemberLocalAddr",
    "StopGRPCServiceOnDefrag",
    "TxnModeWriteWithSharedBuffer",
];

/// What etcd refuses of flags that mean little here, and its two words of caution.
fn other_checks(values: &Values, warnings: &mut Vec<String>) -> Result<(), SettingsError> {
    for gate in values.list("feature-gates") {
        let (name, value) = gate.split_once('=').unwrap_or((&gate, ""));
        if !GATES.contains(&name.trim()) {
            return Err(values.wrong("feature-gates", "it names an unrecognized gate").into());
        }
        if go_bool(value.trim()).is_none() {
            return Err(values
                .wrong("feature-gates", "a gate is written NAME=true or NAME=false")
                .into());
        }
    }
    if values.text_or_default("discovery-fallback") == "proxy" {
        return invalid(
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        );
    }
    if !matches!(values.text_or_default("metrics"), "basic" | "extensive") {
        warnings.push("--metrics is neither basic nor extensive: basic it is".to_owned());
    }
    if values.switch("unsafe-no-fsync") {
        warnings.push(
            "--unsafe-no-fsync: a crash of the machine loses what was acknowledged".to_owned(),
        );
    }
    Ok(())
}

/// One warning for every flag without effect; an error for one that cannot be honoured.
fn check_scopes(values: &Values) -> Result<Vec<String>, SettingsError> {
    let mut warnings = Vec::new();
    for (name, given) in values.given() {
        let flag = flag(name).expect("only flags of the table are noted");
        let changes = !given.value.is_empty() && given.value != flag.default;
        match flag.scope {
            Scope::Refused(why) if changes => {
                return Err(SettingsError::Refused { name: flag.name, why });
            }
            Scope::Ignored(why) if changes => {
                warnings.push(format!("--{name} has no effect: {why}"));
            }
            _ => {}
        }
    }
    Ok(warnings)
}

fn urls(values: &Values, name: &'static str) -> Result<Vec<ListenUrl>, SettingsError> {
    let text = values.text(name).unwrap_or("");
    // Its flag takes a URL that cannot be bound; its checks, a moment later, do not.
    let later = |why: &UrlError| matches!(why, UrlError::NoHost(_) | UrlError::Port(_));
    ListenUrl::parse_list(text).map_err(|why| match values.source(name) {
        Some(Source::CommandLine) if !later(&why) => SettingsError::UrlFlag(name, why),
        _ => SettingsError::Url(name, why),
    })
}

fn listen(values: &Values, name: &'static str) -> Result<Vec<ListenUrl>, SettingsError> {
    let urls = urls(values, name)?;
    match urls.iter().find_map(|url| url.check_bindable().err()) {
        Some(why) => Err(SettingsError::Url(name, why)),
        None => Ok(urls),
    }
}

/// etcd's default where nothing is given and no genesis will tell.
fn or_default(
    given: Vec<ListenUrl>,
    name: &'static str,
    genesis: bool,
) -> Result<Vec<ListenUrl>, SettingsError> {
    if genesis || !given.is_empty() {
        return Ok(given);
    }
    let text = flag(name).map_or("", |flag| flag.default);
    ListenUrl::parse_list(text).map_err(|why| SettingsError::Url(name, why))
}

fn texts(urls: &[ListenUrl]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

fn client(
    values: &Values,
    genesis: bool,
    warnings: &mut Vec<String>,
) -> Result<ClientSettings, SettingsError> {
    let (listen_name, advertise_name) = ("listen-client-urls", "advertise-client-urls");
    let given = listen(values, listen_name)?;
    let advertise = urls(values, advertise_name)?;
    if !given.is_empty() && advertise.is_empty() && !genesis {
        return invalid(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        );
    }
    let listen_urls = or_default(given, listen_name, genesis)?;
    let (listen_http, listen_metrics) =
        (listen(values, "listen-client-http-urls")?, listen(values, "listen-metrics-urls")?);
    let mut all = listen_urls.iter().chain(&listen_http).chain(&listen_metrics);
    let tls = client_tls(values, genesis || all.any(|url| url.tls), warnings)?;
    let certified = tls.certificate.is_some() || tls.automatic || genesis;
    for url in listen_urls.iter().chain(&listen_http).chain(&listen_metrics) {
        if url.tls && !certified {
            return invalid(format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with \
                 HTTPS scheme"
            ));
        }
        if !url.tls && tls.certificate.is_some() {
            let flags = "--cert-file, --key-file and --trusted-ca-file";
            warnings.push(format!("{flags} have no effect on {url}: its scheme is not https"));
        }
    }
    let both = listen_http.iter().find(|url| listen_urls.contains(url));
    if let Some(url) = both {
        return invalid(format!(
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
        ));
    }
    let streams = values.number("max-concurrent-streams").map(u32::try_from).transpose();
    let streams = streams
        .map_err(|_| values.wrong("max-concurrent-streams", "it is larger than 4294967295"))?;
    let mut cap = |flag, allowed| {
        let counts = within(values, (flag, allowed), warnings);
        counts.map(|counts| u32::try_from(counts).expect("a network's bounds are far smaller"))
    };
    Ok(ClientSettings {
        listen: listen_urls,
        listen_http,
        listen_metrics,
        advertise: texts(&or_default(advertise, advertise_name, genesis)?),
        tls,
        request_bytes_max: cap("max-request-bytes", Parameters::REQUEST_BYTES),
        txn_ops_max: cap("max-txn-ops", Parameters::TXN_OPS),
        streams_max: streams,
        keepalive_interval_ms: values.milliseconds("grpc-keepalive-interval"),
        keepalive_timeout_ms: values.milliseconds("grpc-keepalive-timeout"),
        watch_progress_ms: values.milliseconds("watch-progress-notify-interval"),
        rest: values.switch("enable-grpc-gateway"),
        auth: auth(values)?,
        metrics_extensive: values.text_or_default("metrics") == "extensive",
        slow_request_ms: match values.milliseconds("warning-unary-request-duration") {
            0 => 300,
            given => given,
        },
        host_whitelist: all_or(values.list("host-whitelist")),
        cors: all_or(values.list("cors")),
    })
}

/// A list with `*` in it is as good as none.
fn all_or(names: Vec<String>) -> Vec<String> {
    if names.iter().any(|name| name == "*") { Vec::new() } else { names }
}

fn peer(
    values: &Values,
    genesis: bool,
    warnings: &mut Vec<String>,
) -> Result<PeerSettings, SettingsError> {
    let (listen_name, advertise_name) = ("listen-peer-urls", "initial-advertise-peer-urls");
    let advertise = urls(values, advertise_name)?;
    if let Some(url) = advertise.iter().find(|url| url.port.is_none()) {
        return invalid(format!("--{advertise_name} {:?} must be \"host:port\"", url.to_string()));
    }
    let listen = or_default(listen(values, listen_name)?, listen_name, genesis)?;
    Ok(PeerSettings {
        tls: peer_tls(values, genesis, &listen, warnings)?,
        listen,
        advertise: texts(&or_default(advertise, advertise_name, genesis)?),
    })
}

fn initial_cluster(values: &Values) -> Result<Vec<(String, String)>, SettingsError> {
    let mut members = Vec::new();
    for part in values.text("initial-cluster").unwrap_or("").split(',') {
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        let Some((name, url)) = part.split_once('=') else {
            return invalid(format!("--initial-cluster: {part:?} is not of the form NAME=URL"));
        };
        ListenUrl::parse(url).map_err(|why| SettingsError::Url("initial-cluster", why))?;
        members.push((name.to_owned(), url.to_owned()));
    }
    Ok(members)
}

fn auto_compaction(values: &Values) -> Result<AutoCompaction, SettingsError> {
    let retention = values.text_or_default("auto-compaction-retention");
    let number = retention.parse::<u64>().ok();
    let wrong =
        |form: &str| invalid(format!("--auto-compaction-retention is {retention:?}; it is {form}"));
    match values.text_or_default("auto-compaction-mode") {
        "revision" => match number {
            Some(0) => Ok(AutoCompaction::Off),
            Some(keep) => Ok(AutoCompaction::Revisions { keep }),
            None => wrong("a number of revisions"),
        },
        "periodic" => {
            let hours = number.map(|hours| hours.saturating_mul(3_600_000));
            let keep_ms = hours.or_else(|| Some(go_duration_ns(retention)? / 1_000_000));
            match keep_ms {
                Some(0) => Ok(AutoCompaction::Off),
                Some(keep_ms) => Ok(AutoCompaction::Periodic { keep_ms }),
                None => wrong("a duration such as 5m, or whole hours"),
            }
        }
        other => invalid(format!("unknown auto-compaction-mode {other:?}")),
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
