//! `althing version`, and what `--version` prints.

/// The etcd whose API this is; tools read it from the first line of `--version`.
pub(super) const ETCD_VERSION: &str = "3.7.3";

/// The lines of `--version`: etcd's first, because tools parse it.
pub(super) fn text() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nAlthing Version: {}\nOS/Arch: {}/{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}
