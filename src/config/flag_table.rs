//! The one table of flags: all of etcd 3.7, then Althing's own.

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--flag` alone means true.
    Switch,
    /// A whole number from 0.
    Number,
    /// A whole number that may be negative.
    Integer,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Go's way: 300ms, 1m30s; in a file whole nanoseconds.
    Duration,
    /// Anything.
    Text,
    /// Comma-separated.
    List,
}

/// What a flag reaches (etcd-surface.md 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This process alone.
    Local,
    /// What this replica admits, below what the network allows.
    Admission,
    /// The same on every replica: with one owner what the member started last was told; else voted.
    Voted,
    /// Accepted with a warning that says why it has no effect here.
    Ignored(&'static str),
    /// Means something that is not built: refused if set to anything but its default.
    Refused(&'static str),
}

/// Where `--help` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The replica itself.
    Member,
    /// How the network starts.
    Clustering,
    /// TLS.
    Security,
    /// Users and tokens.
    Auth,
    /// Metrics, pprof.
    Monitoring,
    /// Logs.
    Logging,
    /// OpenTelemetry.
    Tracing,
    /// The rest of etcd's.
    Features,
    /// May lose data.
    Unsafe,
    /// Not etcd's.
    Althing,
}

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// etcd's default; empty where there is none.
    pub default: &'static str,
    /// What it reaches.
    pub scope: Scope,
    /// Where `--help` shows it.
    pub section: Section,
    /// One line.
    pub help: &'static str,
}

impl Flag {
    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        let prefix = if self.section == Section::Althing { "ALTHING_" } else { "ETCD_" };
        prefix.to_owned() + &self.name.to_ascii_uppercase().replace('-', "_")
    }
}

/// The flag with this name.
#[must_use]
pub fn flag(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

const NO_RAFT: &str = "there is no raft here";
const NO_BBOLT: &str = "there is no bbolt database here";
const ROOTS: &str = "state roots are compared in every block";
const NO_TRACING: &str = "tracing is not there yet";
const NO_DISCOVERY: &str = "discovery is not there; members meet by a genesis file";

use Kind::{Duration, Integer, List, Number, OneOf, Switch, Text};
use Scope::{Admission, Ignored, Local, Refused, Voted};

/// All flags, section by section.
#[rustfmt::skip] // One or two lines each, not seven.
pub static FLAGS: &[Flag] = &[
    // -- Member
    member("name", Text, "default", Local, "This member's name."),
    member("data-dir", Text, "${name}.etcd", Local, "Directory of the log and the checkpoints."),
    member("wal-dir", Text, "", Ignored("the log is the database and lies in --data-dir"),
        "A directory for etcd's log alone."),
    member("snapshot-count", Number, "10000",
        Ignored("checkpoints follow the network's parameters"),
        "Entries between raft snapshots."),
    member("heartbeat-interval", Number, "100", Ignored(NO_RAFT),
        "Milliseconds between raft heartbeats."),
    member("election-timeout", Number, "1000", Voted,
        "Milliseconds until a silent leader is replaced."),
    member("initial-election-tick-advance", Switch, "true", Ignored(NO_RAFT),
        "Shortens raft's first election."),
    member("listen-peer-urls", List, "http://localhost:2380", Local,
        "Where to listen for other replicas."),
    member("listen-client-urls", List, "http://localhost:2379", Local,
        "Where to listen for clients."),
    member("listen-client-http-urls", List, "", Local,
        "Where to listen for HTTP only; takes HTTP away from --listen-client-urls."),
    member("max-snapshots", Number, "5", Ignored("two checkpoints are kept"),
        "Raft snapshots to keep."),
    member("max-wals", Number, "5", Ignored("log segments are kept as the checkpoints need them"),
        "Raft log files to keep."),
    member("memory-mlock", Switch, "false", Ignored(NO_BBOLT), "Locks bbolt's pages in memory."),
    member("quota-backend-bytes", Integer, "0", Voted,
        "Logical bytes until the NOSPACE alarm; 0 means 2 GiB, less means the most there can be."),
    member("backend-bbolt-freelist-type", Text, "map", Ignored(NO_BBOLT),
        "Kind of bbolt's free list."),
    member("backend-batch-interval", Duration, "", Ignored(NO_BBOLT),
        "Longest time between bbolt's commits."),
    member("backend-batch-limit", Integer, "0", Ignored(NO_BBOLT),
        "Most operations between bbolt's commits."),
    member("max-txn-ops", Number, "128", Admission, "Most operations of one transaction."),
    member("max-request-bytes", Number, "1572864", Admission, "Most bytes of one request."),
    member("max-concurrent-streams", Number, "math.MaxUint32", Local,
        "Most streams of one client connection."),
    member("grpc-keepalive-min-time", Duration, "5s", Ignored("pings are answered as they come"),
        "Clients that ping more often are disconnected."),
    member("grpc-keepalive-interval", Duration, "2h", Local,
        "Time between pings to an idle client; 0 for none."),
    member("grpc-keepalive-timeout", Duration, "20s", Local, "Time a client has to answer a ping."),
    member("socket-reuse-port", Switch, "false", Ignored("a port belongs to one process"),
        "Several sockets share a port (SO_REUSEPORT)."),
    member("socket-reuse-address", Switch, "false", Ignored("it is always on"),
        "Binds a port in TIME_WAIT (SO_REUSEADDR)."),
    member("enable-grpc-gateway", Switch, "true", Local, "JSON over HTTP under /v3."),
    member("raft-read-timeout", Duration, "5s", Ignored(NO_RAFT),
        "Read timeout of raft connections."),
    member("raft-write-timeout", Duration, "5s", Ignored(NO_RAFT),
        "Write timeout of raft connections."),
    member("feature-gates", List, "",
        Ignored("etcd's gates switch parts that are built differently here"),
        "etcd's feature gates, NAME=true|false."),
    member("config-file", Text, "", Local,
        "A YAML file in place of all other flags and variables."),
    // -- Clustering
    cluster("initial-advertise-peer-urls", List, "http://localhost:2380", Local,
        "Where other replicas find this one."),
    cluster("initial-cluster", List, "default=http://localhost:2380", Local,
        "NAME=PEER-URL of every member of a network that starts without a genesis."),
    cluster("initial-cluster-state", OneOf(&["new", "existing"]), "new", Local,
        "'new' or 'existing'."),
    cluster("initial-cluster-token", Text, "etcd-cluster", Local,
        "Tells networks apart while they start."),
    cluster("advertise-client-urls", List, "http://localhost:2379", Local,
        "Where clients find this replica, as MemberList shows it."),
    cluster("discovery", Text, "", Refused(NO_DISCOVERY), "URL of etcd's v2 discovery."),
    cluster("discovery-token", Text, "", Refused(NO_DISCOVERY), "Token of etcd's v3 discovery."),
    cluster("discovery-endpoints", List, "", Refused(NO_DISCOVERY),
        "Endpoints of etcd's v3 discovery."),
    cluster("discovery-dial-timeout", Duration, "2s", Ignored(NO_DISCOVERY),
        "Discovery: dial timeout."),
    cluster("discovery-request-timeout", Duration, "5s", Ignored(NO_DISCOVERY),
        "Discovery: request timeout."),
    cluster("discovery-keepalive-time", Duration, "2s", Ignored(NO_DISCOVERY),
        "Discovery: keepalive time."),
    cluster("discovery-keepalive-timeout", Duration, "6s", Ignored(NO_DISCOVERY),
        "Discovery: keepalive timeout."),
    cluster("discovery-insecure-transport", Switch, "true", Ignored(NO_DISCOVERY),
        "Discovery: no TLS."),
    cluster("discovery-insecure-skip-tls-verify", Switch, "false", Ignored(NO_DISCOVERY),
        "Discovery: unchecked TLS."),
    cluster("discovery-cert", Text, "", Ignored(NO_DISCOVERY), "Discovery: client certificate."),
    cluster("discovery-key", Text, "", Ignored(NO_DISCOVERY), "Discovery: client key."),
    cluster("discovery-cacert", Text, "", Ignored(NO_DISCOVERY), "Discovery: CA certificates."),
    cluster("discovery-user", Text, "", Ignored(NO_DISCOVERY), "Discovery: user."),
    cluster("discovery-password", Text, "", Ignored(NO_DISCOVERY), "Discovery: password."),
    cluster("discovery-fallback", OneOf(&["exit", "proxy"]), "exit", Ignored(NO_DISCOVERY),
        "Discovery: what to do when it fails."),
    cluster("discovery-proxy", Text, "", Ignored(NO_DISCOVERY), "Discovery: HTTP proxy."),
    cluster("discovery-srv", Text, "", Refused(NO_DISCOVERY),
        "Domain whose SRV records name the members."),
    cluster("discovery-srv-name", Text, "", Refused(NO_DISCOVERY), "Suffix of those records."),
    cluster("strict-reconfig-check", Switch, "true", Local,
        "Refuses member changes that lose the quorum."),
    cluster("pre-vote", Switch, "true", Ignored(NO_RAFT), "raft's pre-vote."),
    cluster("auto-compaction-retention", Text, "0", Local,
        "History kept by automatic compaction; 0 for all."),
    cluster("auto-compaction-mode", Text, "periodic", Local,
        "'periodic' (a duration, or hours) or 'revision' (a count)."),
    cluster("v2-deprecation",
        OneOf(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
        "write-only", Ignored("there never was a v2 store here"),
        "Phase of etcd's v2 store."),
    // -- Security
    security("cert-file", Text, "", Local, "Certificate shown to clients."),
    security("key-file", Text, "", Local, "Its key."),
    security("client-cert-auth", Switch, "false", Local, "Clients must show a certificate."),
    security("client-cert-file", Text, "", Ignored("no replica is a client of its own port"),
        "Certificate shown to etcd's own port."),
    security("client-key-file", Text, "", Ignored("no replica is a client of its own port"),
        "Its key."),
    security("client-crl-file", Text, "", Local,
        "Revoked client certificates."),
    security("client-cert-allowed-hostname", List, "", Local,
        "Hostnames a client certificate must carry."),
    security("trusted-ca-file", Text, "", Local, "CA of the clients' certificates."),
    security("auto-tls", Switch, "false", Local,
        "Clients get TLS with a certificate made at start."),
    security("peer-cert-file", Text, "", Local,
        "Certificate shown at https peer URLs, where members find each other; links pin keys."),
    security("peer-key-file", Text, "", Local, "Its key."),
    security("peer-client-cert-auth", Switch, "false", Local,
        "Members that look for others there must show a certificate."),
    security("peer-client-cert-file", Text, "", Local,
        "Certificate shown by a member that looks for others; else --peer-cert-file."),
    security("peer-client-key-file", Text, "", Local, "Its key."),
    security("peer-trusted-ca-file", Text, "", Local,
        "CA of the members' certificates; else the system's."),
    security("peer-cert-allowed-cn", List, "", Local, "Common names the members' certificates have."),
    security("peer-cert-allowed-hostname", List, "", Local,
        "Hostnames the members' certificates carry."),
    security("peer-auto-tls", Switch, "false", Local,
        "https peer URLs get a certificate made at start; the others' are not checked."),
    security("self-signed-cert-validity", Number, "1", Local,
        "Years a certificate of --auto-tls or --peer-auto-tls is valid."),
    security("peer-crl-file", Text, "", Local, "Revoked certificates of members."),
    security("cipher-suites", List, "", Local,
        "TLS 1.2 suites to offer; those without forward secrecy or authentication are left out."),
    security("cors", List, "*", Local, "Origins for CORS; empty or * means all."),
    security("host-whitelist", List, "*", Local,
        "Hostnames HTTP requests without TLS may name; empty or * means all."),
    security("tls-min-version", Text, "TLS1.2", Local,
        "Oldest TLS for clients: TLS1.2 or TLS1.3."),
    security("tls-max-version", Text, "", Local,
        "Newest TLS for clients: TLS1.2 or TLS1.3; empty for the newest there is."),
    // -- Auth
    auth("auth-token", Text, "simple", Local,
        "Kind of authentication token: simple, or jwt,sign-method=...,pub-key=...,priv-key=...,ttl=..."),
    auth("bcrypt-cost", Number, "10", Local, "Cost of password hashes."),
    auth("auth-token-ttl", Number, "300", Local, "Seconds a simple token lives unused."),
    // -- Monitoring
    monitor("enable-pprof", Switch, "false", Ignored("there is no Go runtime to profile"),
        "Profiles under /debug/pprof."),
    monitor("metrics", Text, "basic", Local,
        "'basic', or 'extensive' for latency histograms of every RPC."),
    monitor("listen-metrics-urls", List, "", Local,
        "Where else to answer /metrics, /health, /livez, /readyz."),
    // -- Logging
    logging("logger", Text, "zap", Ignored("log lines are structured whatever it says"),
        "etcd's logging library."),
    logging("log-outputs", List, "default", Local,
        "'stderr', 'stdout' or files; default is stderr."),
    logging("log-level", Text, "info", Local, "debug, info, warn, error, panic or fatal."),
    logging("log-format", Text, "json", Local, "json or console."),
    logging("enable-log-rotation", Switch, "false", Local,
        "Rotates the log file, of which --log-outputs then names one."),
    logging("log-rotation-config-json", Text,
        "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}",
        Local, "How to rotate it: megabytes, days, files kept."),
    logging("warning-unary-request-duration", Duration, "300ms", Local,
        "Requests that take longer are logged."),
    // -- Tracing
    tracing("enable-distributed-tracing", Switch, "false", Ignored(NO_TRACING),
        "Sends traces by OpenTelemetry."),
    tracing("distributed-tracing-address", Text, "localhost:4317", Ignored(NO_TRACING),
        "Where to."),
    tracing("distributed-tracing-service-name", Text, "etcd", Ignored(NO_TRACING),
        "Under which service name."),
    tracing("distributed-tracing-instance-id", Text, "", Ignored(NO_TRACING),
        "Under which instance id."),
    tracing("distributed-tracing-sampling-rate", Integer, "0", Ignored(NO_TRACING),
        "Samples per million spans."),
    // -- Features
    feature("corrupt-check-time", Duration, "0s", Ignored(ROOTS),
        "Time between comparisons of the members' data."),
    feature("compact-hash-check-time", Duration, "1m", Ignored(ROOTS),
        "Time between comparisons of compaction hashes."),
    feature("compaction-batch-limit", Integer, "1000", Ignored("compaction takes one step"),
        "Revisions removed at a time."),
    feature("peer-skip-client-san-verification", Switch, "false", Local,
        "A member may look for others from an address that its certificate does not name."),
    feature("watch-progress-notify-interval", Duration, "10m", Local,
        "Time between progress notifications of a watch."),
    feature("warning-apply-duration", Duration, "100ms", Ignored("blocks are timed by metrics"),
        "Entries that take longer to apply are logged."),
    feature("bootstrap-defrag-threshold-megabytes", Number, "0",
        Ignored("there is nothing to defragment"),
        "Defragments at start if it frees this much."),
    feature("max-learners", Integer, "1", Local,
        "Most learners of the network."),
    feature("compaction-sleep-interval", Duration, "", Ignored("compaction takes one step"),
        "Pause between compaction batches."),
    feature("downgrade-check-time", Duration, "", Ignored("there is no downgrade to watch"),
        "Time between looks at the downgrade status."),
    feature("snapshot-catchup-entries", Number, "",
        Ignored("who is behind gets blocks or a checkpoint"),
        "Entries kept for slow followers."),
    // -- Unsafe
    danger("force-new-cluster", Switch, "false", Local,
        "Makes a one-member cluster of this data; refused where there are other members."),
    danger("unsafe-no-fsync", Switch, "false", Local,
        "Does not wait for the disk; only with one replica; loses data."),
    // -- Althing
    own("genesis", Text, "", Local,
        "The genesis file all organisations signed; default HOME/genesis.json if --home is given."),
    own("home", Text, "", Local, "This organisation's directory: keys, certificates, genesis."),
    own("allow-loose-permissions", Switch, "false", Local,
        "Takes key files that others could read."),
    own("client-cert-allowed-cn", List, "", Local,
        "Common names a client certificate must carry one of; etcd has it in its file alone."),
    own("history-retention", Duration, "720h", Local,
        "Blocks older than this, by block time, leave the log once they are pruned; 0 keeps all."),
];

const fn new(
    section: Section,
    (name, kind, default): (&'static str, Kind, &'static str),
    scope: Scope,
    help: &'static str,
) -> Flag {
    Flag { name, kind, default, scope, section, help }
}

macro_rules! sections {
    ($($function:ident => $section:ident),* $(,)?) => {$(
        const fn $function(
            name: &'static str,
            kind: Kind,
            default: &'static str,
            scope: Scope,
            help: &'static str,
        ) -> Flag {
            new(Section::$section, (name, kind, default), scope, help)
        }
    )*};
}

sections! {
    member => Member,
    cluster => Clustering,
    security => Security,
    auth => Auth,
    monitor => Monitoring,
    logging => Logging,
    tracing => Tracing,
    feature => Features,
    danger => Unsafe,
    own => Althing,
}
