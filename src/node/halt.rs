//! Fail stop (README decision 10): the exit codes that operators and units see.

/// A write or fsync of the log failed. Never retried: after an EIO the second fsync returns success.
pub const EXIT_LOG_FAILED: i32 = 70;

/// The core or the state found a broken invariant.
pub const EXIT_HALTED: i32 = 71;

/// This replica was removed from the network: starting it again is no use.
pub const EXIT_REMOVED: i32 = 72;

/// Ends the process at once. Nothing is flushed: what was promised is on disk already.
pub(super) fn halt(code: i32, reason: &str) -> ! {
    tracing::error!(event = "halt", code, "{reason}");
    eprintln!("althing: stopped: {reason} (exit code {code}, see docs/operating/faults.md)");
    std::process::exit(code);
}
