//! The import table of `docs/architecture.md` and the budgets, as data, and the ratchet: what is
//! above a rule today. The ratchet only shrinks.

/// What one top-level module of `src/` may use.
pub struct Rule {
    /// Its name.
    pub module: &'static str,
    /// Other modules it may name after `crate::`.
    pub modules: &'static [&'static str],
    /// Outside crates beyond std and bytes.
    pub crates: &'static [&'static str],
    /// Whether it is part of the pure half: no clock, socket, thread, lock, random source or log line.
    pub pure: bool,
    /// Non-test lines.
    pub budget: usize,
    /// What it must not do, for the message.
    pub instead: &'static str,
}

const fn pure(
    module: &'static str,
    modules: &'static [&'static str],
    crates: &'static [&'static str],
    budget: usize,
    instead: &'static str,
) -> Rule {
    Rule { module, modules, crates, pure: true, budget, instead }
}

const fn shell(
    module: &'static str,
    modules: &'static [&'static str],
    crates: &'static [&'static str],
    budget: usize,
    instead: &'static str,
) -> Rule {
    Rule { module, modules, crates, pure: false, budget, instead }
}

/// The module of bugs put in on purpose; nothing of it is in a release.
pub const PLANTED: &str = "planted";

/// In the order of the layers.
pub const RULES: &[Rule] = &[
    // Every module may name it: a planted bug stands where the rule it breaks is kept.
    shell(PLANTED, &[], &[], 230, "planted bugs know no other module"),
    pure(
        "types",
        &[],
        &[],
        500,
        "types hold words and checked arithmetic; put behaviour above them",
    ),
    pure("codec", &["types"], &[], 400, "codec knows bytes; put meaning into chain"),
    pure(
        "crypto",
        &["types", "codec"],
        &["blake3", "ed25519_dalek", "zeroize", "subtle"],
        600,
        "crypto knows digests and keys; put meaning into chain",
    ),
    pure(
        "chain",
        &["types", "codec", "crypto"],
        &[],
        // Every format is written out in both directions by hand.
        2_600,
        "chain decides what bytes alone decide; ask the state in apply",
    ),
    pure(
        "ordering",
        &["types", "codec", "crypto", "chain"],
        &[],
        4_000,
        "ordering orders and does not interpret; pass what it needs as an Input",
    ),
    pure(
        "state",
        &["types", "codec", "crypto", "chain"],
        &[],
        3_600,
        "state must be equal on all replicas; local facts stay outside",
    ),
    pure(
        "apply",
        &["types", "chain", "state"],
        &[],
        1_500,
        "apply is a function of block and state; report in Outcome what others should do",
    ),
    pure(
        "verify",
        &["types", "codec", "crypto", "chain"],
        &[],
        900,
        "verify lifts out as a crate; give it bytes",
    ),
    pure(
        "watch",
        &["types", "chain", "state"],
        &[],
        900,
        "watch decides who gets what next; node wakes",
    ),
    pure(
        "storage",
        &["types", "codec", "crypto", "chain"],
        &["sled", "rustix", "fs4"],
        4_000,
        "storage keeps bytes; node moves them",
    ),
    shell(
        "observe",
        &["types"],
        &[
            "tracing",
            "tracing_subscriber",
            "file_rotate",
            "chrono",
            "metrics",
            "metrics_exporter_prometheus",
            "metrics_process",
        ],
        400,
        "observe knows no other module; pass numbers in",
    ),
    shell(
        "tls",
        &["types", "crypto", "observe"],
        &[
            "rustls",
            "tokio_rustls",
            "rustls_pki_types",
            "notify",
            "arc_swap",
            "tokio",
            "tracing",
            "rcgen",
            "x509_parser",
            "zeroize",
        ],
        350,
        "tls makes acceptors and connectors; listeners are net's and web's",
    ),
    shell(
        "net",
        &["types", "codec", "crypto", "tls", "observe"],
        &[
            "tokio",
            "tokio_util",
            "tokio_rustls",
            "rustls",
            "rustls_pki_types",
            "tracing",
            "getrandom",
        ],
        1_150,
        "net moves frames between identities; their meaning is ordering's",
    ),
    shell(
        "config",
        &["types", "crypto", "chain"],
        &[
            "serde",
            "serde_json",
            "serde_saphyr",
            "clap",
            "strsim",
            "thiserror",
            "anyhow",
            "getrandom",
            "rustix",
            "zeroize",
        ],
        700,
        "config makes one validated value and the keys of a home; node opens sockets",
    ),
    shell(
        "node",
        &[
            "types", "codec", "crypto", "chain", "ordering", "state", "apply", "verify", "watch",
            "storage", "observe", "tls", "net", "config",
        ],
        &[
            "tokio",
            "tokio_util",
            "tokio_stream",
            "tracing",
            "metrics",
            "arc_swap",
            "getrandom",
            "thiserror",
        ],
        2_000,
        "node serves api, web and cli; it never calls them",
    ),
    // `state` for the types that a read through `node::Handle::read` answers with.
    shell(
        "api",
        &["types", "chain", "apply", "state", "watch", "tls", "observe", "node"],
        &[
            "tonic",
            "tonic_prost",
            "tonic_health",
            "prost",
            "prost_reflect",
            "prost_types",
            "tokio",
            "tokio_stream",
            "tokio_util",
            "axum",
            "http",
            "http_body_util",
            "hyper",
            "tower",
            "tracing",
            "getrandom",
            "base64",
            "bcrypt",
            "sha2",
            "jsonwebtoken",
            "serde",
            "serde_json",
        ],
        3_600,
        "api speaks etcd; everything else goes through node::Handle",
    ),
    shell(
        "web",
        // `codec` to show the canonical bytes of a block.
        &["types", "codec", "chain", "verify", "tls", "observe", "node"],
        &[
            "arc_swap",
            "hyper",
            "hyper_util",
            "axum",
            "tower",
            "serde",
            "serde_json",
            "rust_embed",
            "http",
            "http_body_util",
            "tokio",
            "tokio_util",
            "tokio_rustls",
            "rustls",
            "tracing",
            "metrics",
        ],
        1_200,
        "web speaks HTTP; everything else goes through node::Handle",
    ),
    shell(
        "cli",
        &[
            "types", "codec", "crypto", "chain", "verify", "config", "storage", "tls", "net",
            "observe", "node", "api", "web",
        ],
        &[
            "sd_notify",
            "clap",
            "hyper",
            "hyper_rustls",
            "hyper_util",
            "http",
            "http_body_util",
            "rcgen",
            "tonic",
            "tonic_prost",
            "prost",
            "anyhow",
            "comfy_table",
            "sha2",
            "fs4",
            "jiff",
            "serde",
            "serde_json",
            "rustls",
            "rustls_pki_types",
            "tokio",
            "tokio_stream",
            "tracing",
            "axum",
            "tower",
            "x509_parser",
            "rustix",
            "getrandom",
            "zeroize",
            "strsim",
        ],
        2_000,
        "cli reads offline or asks a server; it never changes replicated state itself",
    ),
];

/// Crates that only some files of their module may name.
pub const ONLY_IN: &[(&str, &str)] =
    &[("sled", "src/storage/index"), ("rustix", "src/storage/disk/os.rs")];

/// Most non-test lines of one file; a file of the list below may have more, up to the hard cap.
pub const FILE_LINES: usize = 500;
/// No file has more.
pub const FILE_LINES_MAX: usize = 800;
/// Columns of a line of code.
pub const COLUMNS: usize = 100;
/// Columns of a line that is a comment or holds a string: words are not torn apart for it.
pub const TEXT_COLUMNS: usize = 120;

/// Imports the table forbids: (file, what it names). Only shrinks.
pub const IMPORT_RATCHET: &[(&str, &str)] = &[];

/// Files above [`FILE_LINES`]: (file, lines at most). Only shrinks.
pub const FILE_RATCHET: &[(&str, usize)] = &[("src/state/trie/mod.rs", 516)];

/// Modules above their budget: (module, lines at most). Only shrinks.
pub const MODULE_RATCHET: &[(&str, usize)] = &[
    ("chain", 6_396),
    ("ordering", 7_945),
    ("state", 5_040),
    ("storage", 7_080),
    ("observe", 560),
    ("tls", 1_590),
    ("net", 1_420),
    ("config", 3_828),
    ("node", 6_060),
    ("api", 6_050),
    ("web", 2_440),
    ("cli", 4_890),
];

/// Lines above [`COLUMNS`]: (file, how many). Only shrinks.
pub const COLUMN_RATCHET: &[(&str, usize)] =
    &[("src/config/flags_doc.rs", 6), ("benches/state.rs", 2)];

/// Things the pure part must not name: (file, what). Only shrinks.
pub const PURE_RATCHET: &[(&str, &str)] = &[];

/// Pages that are still to be written, and what waits for them. Only shrinks.
pub const PAGES_TO_COME: &[&str] = &[];
