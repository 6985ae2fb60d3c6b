//! The flags that one owner's members must agree on (etcd-surface.md 4), within a network's bounds.

use std::ops::RangeInclusive;

use super::flags::Values;
use super::settings::{Settings, SettingsError, invalid};
use crate::chain::Parameters;

/// Below 0 etcd has no quota; that, and more than a network may have, is the largest it may.
pub(super) fn quota(values: &Values) -> Option<u64> {
    let given = values.integer("quota-backend-bytes").filter(|bytes| *bytes != 0)?;
    Some(u64::try_from(given).unwrap_or(u64::MAX).min(Parameters::QUOTA_BYTES_MAX))
}

/// etcd's checks of its two timers, then the one that has a meaning here.
pub(super) fn election_timeout(
    values: &Values,
    warnings: &mut Vec<String>,
) -> Result<Option<u64>, SettingsError> {
    let heartbeat = values.number("heartbeat-interval").unwrap_or(100);
    let election = values.number("election-timeout").unwrap_or(1000);
    if heartbeat == 0 || election == 0 {
        return invalid("--heartbeat-interval and --election-timeout must be >0");
    }
    if heartbeat.saturating_mul(5) > election {
        return invalid(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > 50_000 {
        return invalid(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than 50000ms"
        ));
    }
    Ok(within(values, ("election-timeout", Parameters::VIEW_TIMEOUT_MS), warnings))
}

/// What etcd takes and no network may have becomes the nearest that one may, and a warning.
pub(super) fn within(
    values: &Values,
    (flag, allowed): (&'static str, RangeInclusive<u64>),
    warnings: &mut Vec<String>,
) -> Option<u64> {
    let given = values.number(flag)?;
    let (least, most) = allowed.into_inner();
    let counts = given.clamp(least, most);
    if counts != given {
        warnings.push(format!(
            "--{flag} is {given}, taken as {counts}: a network has {least} to {most}"
        ));
    }
    Some(counts)
}

/// What the parameters of a network that runs become by the flags.
#[must_use]
pub fn voted(settings: &Settings, in_force: &Parameters) -> Parameters {
    // Below the network's, these two bound what this replica admits, and nobody else.
    let raised = |given: Option<u32>, network: u32| given.unwrap_or(network).max(network);
    let Settings { client, bootstrap, .. } = settings;
    Parameters {
        request_bytes_max: raised(client.request_bytes_max, in_force.request_bytes_max),
        txn_ops_max: raised(client.txn_ops_max, in_force.txn_ops_max),
        quota_bytes: bootstrap.quota_bytes.unwrap_or(in_force.quota_bytes),
        view_timeout_ms: bootstrap.view_timeout_ms.unwrap_or(in_force.view_timeout_ms),
        ..in_force.clone()
    }
}

/// The voted flags that ask for something else than the network has.
#[must_use]
pub fn voted_differences(settings: &Settings, in_force: &Parameters) -> Vec<&'static str> {
    let wanted = voted(settings, in_force);
    let flags = [
        ("quota-backend-bytes", wanted.quota_bytes != in_force.quota_bytes),
        ("election-timeout", wanted.view_timeout_ms != in_force.view_timeout_ms),
        ("max-request-bytes", wanted.request_bytes_max != in_force.request_bytes_max),
        ("max-txn-ops", wanted.txn_ops_max != in_force.txn_ops_max),
    ];
    flags.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}
