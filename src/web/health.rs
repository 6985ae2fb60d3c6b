use std::collections::BTreeSet;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::{Method, StatusCode};

use super::answer::{TEXT, failure, found, method_not_allowed, not_found, parameter, parameters};
use super::{Web, corrupt};
use crate::chain::AlarmKind;
use crate::node::NodeError;
use crate::observe::{self, table};

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

/// etcd's checks (`server/etcdserver/api/etcdhttp/health.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    /// Why it fails, if it does.
    async fn run(self, web: &Web) -> Result<(), String> {
        match self {
            Self::DataCorruption if corrupt(web) => Err("alarm activated: CORRUPT".to_owned()),
            Self::LinearizableRead => web.handle.linearizable().await.map_err(words),
            // A local read waits for nothing but the state's lock.
            Self::SerializableRead => {
                web.handle.read(|shared| shared.state.kv.revision());
                Ok(())
            }
            Self::NonLearner if web.handle.is_learner() => {
                Err("not supported for learner".to_owned())
            }
            Self::DataCorruption | Self::NonLearner => Ok(()),
        }
    }
}

/// etcd's words for why a read fails, which its users match on.
fn words(error: NodeError) -> String {
    let text = match error {
        NodeError::NoLeader => "no leader",
        NodeError::Timeout => "request timed out",
        NodeError::TimeoutLeaderFail => {
            "request timed out, possibly due to previous leader failure"
        }
        NodeError::Stopped => "server stopped",
        NodeError::TooManyRequests => "too many requests",
        NodeError::TooLarge => "request is too large",
        NodeError::Corrupt => "corrupt cluster",
        NodeError::Refused(_) => "a read is not ordered",
    };
    format!("etcdserver: {text}")
}

pub(super) async fn livez(
    State(web): State<Web>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    all(&web, &method, ("livez", LIVEZ), query).await
}

pub(super) async fn readyz(
    State(web): State<Web>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    all(&web, &method, ("readyz", READYZ), query).await
}

pub(super) async fn livez_one(
    State(web): State<Web>,
    method: Method,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    one(&web, &method, ("livez", LIVEZ, &name), query).await
}

pub(super) async fn readyz_one(
    State(web): State<Web>,
    method: Method,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    one(&web, &method, ("readyz", READYZ, &name), query).await
}

/// All checks but those that `exclude` names; a name that is no check excludes nothing.
async fn all(
    web: &Web,
    method: &Method,
    (kind, checks): (&str, &[Check]),
    query: Option<String>,
) -> Response {
    let query = parameters(query.as_deref());
    let excluded: BTreeSet<&str> =
        query.iter().filter(|(name, _)| name == "exclude").map(|(_, v)| v.as_str()).collect();
    let wanted: Vec<Check> =
        checks.iter().copied().filter(|check| !excluded.contains(check.name())).collect();
    let verbose = parameter(&query, "verbose").is_some();
    run(web, method, (kind, &wanted), verbose).await
}

async fn one(
    web: &Web,
    method: &Method,
    (kind, checks, name): (&str, &[Check], &str),
    query: Option<String>,
) -> Response {
    let Some(check) = checks.iter().find(|check| check.name() == name) else { return not_found() };
    let verbose = parameter(&parameters(query.as_deref()), "verbose").is_some();
    run(web, method, (kind, &[*check]), verbose).await
}

async fn run(
    web: &Web,
    method: &Method,
    (kind, checks): (&str, &[Check]),
    verbose: bool,
) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let mut results = Vec::new();
    for check in checks {
        let result = check.run(web).await;
        let status = if result.is_ok() { "success" } else { "error" };
        observe::counter(&table::HEALTHCHECKS, &[kind, check.name(), status]).increment(1);
        results.push((check.name(), result));
    }
    let (status, body) = report(&results, verbose);
    if status == StatusCode::OK {
        found(TEXT, Body::from(body))
    } else {
        tracing::warn!(event = "health_check_failed", kind, reason = %body.trim_end());
        failure(status, &body)
    }
}

/// Failures are always told in detail, successes when asked for.
fn report(results: &[(&str, Result<(), String>)], verbose: bool) -> (StatusCode, String) {
    let detail: String = results
        .iter()
        .map(|(name, result)| match result {
            Ok(()) => format!("[+]{name} ok\n"),
            Err(why) => format!("[-]{name} failed: {why}\n"),
        })
        .collect();
    if results.iter().any(|(_, result)| result.is_err()) {
        (StatusCode::SERVICE_UNAVAILABLE, detail)
    } else if verbose {
        (StatusCode::OK, detail + "ok\n")
    } else {
        (StatusCode::OK, "ok\n".to_owned())
    }
}

pub(super) async fn health(
    State(web): State<Web>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let query = parameters(query.as_deref());
    let serializable = parameter(&query, "serializable") == Some("true");
    let reason = unhealthy(&web, &query, serializable).await;
    let body = verdict(reason.as_deref());
    if reason.is_none() {
        observe::counter(&table::HEALTH_SUCCESS, &[]).increment(1);
        found(TEXT, Body::from(body))
    } else {
        observe::counter(&table::HEALTH_FAILURES, &[]).increment(1);
        tracing::warn!(event = "health_failed", %body);
        failure(StatusCode::SERVICE_UNAVAILABLE, &body)
    }
}

fn verdict(reason: Option<&str>) -> String {
    let health = if reason.is_none() { "true" } else { "false" };
    serde_json::json!({ "health": health, "reason": reason.unwrap_or_default() }).to_string()
}

/// etcd's order: alarms, then the leader, then a read.
async fn unhealthy(web: &Web, query: &[(String, String)], serializable: bool) -> Option<String> {
    let excluded = |name: &str| query.iter().any(|(key, value)| key == "exclude" && value == name);
    let no_space = web.handle.read(|shared| shared.state.alarms.is_raised(AlarmKind::NoSpace));
    if no_space && !excluded("NOSPACE") {
        return Some("ALARM NOSPACE".to_owned());
    }
    if corrupt(web) && !excluded("CORRUPT") {
        return Some("ALARM CORRUPT".to_owned());
    }
    if serializable {
        return None;
    }
    if !web.handle.status().core.has_leader {
        return Some("RAFT NO LEADER".to_owned());
    }
    let read = web.handle.linearizable().await;
    read.err().map(|error| format!("RANGE ERROR:{}", words(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_read_as_etcds() {
        let good = [("data_corruption", Ok(())), ("linearizable_read", Ok(()))];
        assert_eq!(report(&good, false), (StatusCode::OK, "ok\n".to_owned()));
        let detail = "[+]data_corruption ok\n[+]linearizable_read ok\nok\n".to_owned();
        assert_eq!(report(&good, true), (StatusCode::OK, detail));
        let timeout = Err(words(NodeError::Timeout));
        let bad = [("serializable_read", Ok(())), ("linearizable_read", timeout)];
        let detail = "[+]serializable_read ok\n\
                      [-]linearizable_read failed: etcdserver: request timed out\n";
        assert_eq!(report(&bad, false), (StatusCode::SERVICE_UNAVAILABLE, detail.to_owned()));
        assert_eq!(verdict(None), r#"{"health":"true","reason":""}"#);
        assert_eq!(
            verdict(Some("ALARM NOSPACE")),
            r#"{"health":"false","reason":"ALARM NOSPACE"}"#
        );
    }
}
