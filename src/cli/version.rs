//! `althing version`, and what `--version` prints.

/// The etcd whose API this is; tools read it from the first line of `--version`.
pub(super) const ETCD_VERSION: &str = "3.7.3";

/// The machine as Go names it.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        other => other,
    }
}

/// The lines of `--version`: etcd's first, because tools parse it.
pub(super) fn text() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nAlthing Version: {}\nGo OS/Arch: {}/{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        go_architecture()
    )
}
