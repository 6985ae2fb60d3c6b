//! The one table RPC x need, default deny (faults.md 5.4): what a caller must be before a handler sees the
//! request. What depends on keys is asked by the handler, and for everything ordered by apply once more.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::api::Api;
use crate::api::errors::Refusal;
use crate::api::identity::Caller;
use crate::apply::permission::Need;

/// Every method of etcd's services, by service and name. One that is not here is root's.
const METHODS: &[(&str, Need)] = &[
    // By the keys of the request: the handler, and apply.
    ("KV/Range", Need::Nothing),
    ("KV/RangeStream", Need::Nothing),
    ("KV/Put", Need::Nothing),
    ("KV/DeleteRange", Need::Nothing),
    ("KV/Txn", Need::Nothing),
    // At each create request.
    ("Watch/Watch", Need::Nothing),
    // Apply asks for root; a front that lags must not refuse what has just been allowed elsewhere.
    ("KV/Compact", Need::Nothing),
    // And by the keys of the lease.
    ("Lease/LeaseGrant", Need::User),
    ("Lease/LeaseRevoke", Need::User),
    ("Lease/LeaseTimeToLive", Need::User),
    ("Lease/LeaseLeases", Need::User),
    // At each renewal.
    ("Lease/LeaseKeepAlive", Need::Nothing),
    ("Cluster/MemberList", Need::User),
    ("Cluster/MemberAdd", Need::Root),
    ("Cluster/MemberRemove", Need::Root),
    ("Cluster/MemberUpdate", Need::Root),
    ("Cluster/MemberPromote", Need::Root),
    ("Maintenance/Status", Need::User),
    // To see them; apply asks for root to change them.
    ("Maintenance/Alarm", Need::User),
    ("Maintenance/Defragment", Need::Root),
    ("Maintenance/Hash", Need::Root),
    ("Maintenance/HashKV", Need::Root),
    ("Maintenance/Snapshot", Need::Root),
    ("Maintenance/MoveLeader", Need::Root),
    ("Maintenance/Downgrade", Need::Root),
    // They let a caller in, or say whether he needs to be.
    ("Auth/Authenticate", Need::Nothing),
    ("Auth/AuthStatus", Need::Nothing),
    // The handler asks for root, or for who asks about himself, behind what the others acknowledged.
    ("Auth/AuthEnable", Need::Nothing),
    ("Auth/AuthDisable", Need::Nothing),
    ("Auth/UserAdd", Need::Nothing),
    ("Auth/UserGet", Need::Nothing),
    ("Auth/UserList", Need::Nothing),
    ("Auth/UserDelete", Need::Nothing),
    ("Auth/UserChangePassword", Need::Nothing),
    ("Auth/UserGrantRole", Need::Nothing),
    ("Auth/UserRevokeRole", Need::Nothing),
    ("Auth/RoleAdd", Need::Nothing),
    ("Auth/RoleGet", Need::Nothing),
    ("Auth/RoleList", Need::Nothing),
    ("Auth/RoleDelete", Need::Nothing),
    ("Auth/RoleGrantPermission", Need::Nothing),
    ("Auth/RoleRevokePermission", Need::Nothing),
    // They are requests to KV and Lease in the caller's name.
    ("v3lockpb.Lock/Lock", Need::Nothing),
    ("v3lockpb.Lock/Unlock", Need::Nothing),
    ("v3electionpb.Election/Campaign", Need::Nothing),
    ("v3electionpb.Election/Proclaim", Need::Nothing),
    ("v3electionpb.Election/Leader", Need::Nothing),
    ("v3electionpb.Election/Observe", Need::Nothing),
    ("v3electionpb.Election/Resign", Need::Nothing),
];

/// Services that tell nothing of the store.
const OPEN: [&str; 1] = ["grpc.health.v1."];

/// What a learner answers (`v3rpc/interceptor.go`, isRPCSupportedForLearner); of ranges the handler takes
/// the serializable ones.
const FOR_LEARNERS: [&str; 3] = ["KV/Range", "Maintenance/Status", "Maintenance/Snapshot"];

/// The path of every method served, for those who count calls.
#[must_use]
pub fn method_paths() -> Vec<String> {
    let path = |name: &str| {
        if name.starts_with("v3") { format!("/{name}") } else { format!("/etcdserverpb.{name}") }
    };
    let health = ["Check", "Watch"].map(|name| format!("/grpc.health.v1.Health/{name}"));
    METHODS.iter().map(|(name, _)| path(name)).chain(health).collect()
}

/// A method's name as in the table, none for a page: that has no package in front of a service.
fn method_of(path: &str) -> Option<&str> {
    let path = path.trim_start_matches('/');
    let is_method = path.split_once('/').is_some_and(|(service, _)| service.contains('.'));
    is_method.then(|| path.strip_prefix("etcdserverpb.").unwrap_or(path))
}

fn is_open(method: &str) -> bool {
    OPEN.iter().any(|service| method.starts_with(service))
}

fn need(path: &str) -> Need {
    let Some(method) = method_of(path).filter(|method| !is_open(method)) else {
        return Need::Nothing;
    };
    let row = METHODS.iter().find(|(name, _)| *name == method);
    row.map_or(Need::Root, |(_, need)| *need)
}

/// Whether a learner refuses a method; what is none is answered as elsewhere.
fn is_refused_by_learners(path: &str) -> bool {
    method_of(path).is_some_and(|method| {
        let known = is_open(method) || METHODS.iter().any(|(name, _)| *name == method);
        known && !FOR_LEARNERS.contains(&method)
    })
}

/// Refuses who may not call this method.
pub(super) async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if is_refused_by_learners(request.uri().path()) && api.handle.is_learner() {
        return tonic::Status::from(Refusal::NotSupportedForLearner).into_http();
    }
    let need = need(request.uri().path());
    if need != Need::Nothing && api.needs_users() {
        let caller = Caller::from_parts(request.headers(), request.extensions());
        if let Err(refusal) = api.author_with(&caller, need).await {
            return tonic::Status::from(refusal).into_http();
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The methods of `proto/etcd`, those of `rpc.proto` without their package.
    fn contract() -> Vec<String> {
        let files = [
            ("", include_str!("../../proto/etcd/rpc.proto")),
            ("v3lockpb.", include_str!("../../proto/etcd/v3lock.proto")),
            ("v3electionpb.", include_str!("../../proto/etcd/v3election.proto")),
        ];
        files.iter().flat_map(|(package, text)| methods_of(package, text)).collect()
    }

    fn methods_of(package: &str, text: &str) -> Vec<String> {
        let (mut service, mut methods) = ("", Vec::new());
        for line in text.lines() {
            let mut words = line.split([' ', '(']).filter(|word| !word.is_empty());
            match (words.next(), words.next()) {
                (Some("service"), Some(name)) => service = name,
                (Some("rpc"), Some(name)) => methods.push(format!("{package}{service}/{name}")),
                _ => {}
            }
        }
        methods
    }

    #[test]
    fn every_method_of_the_contract_is_in_the_table_once() {
        let mut contract = contract();
        let mut table: Vec<_> = METHODS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert!(contract.len() > 40, "the contract is read");
        contract.sort();
        table.sort();
        assert_eq!(table, contract);
    }

    #[test]
    fn a_learner_answers_what_etcds_does() {
        let answered = |path: &&str| !is_refused_by_learners(path);
        let all = method_paths();
        let answers: Vec<&str> = all.iter().map(String::as_str).filter(answered).collect();
        let expected = ["KV/Range", "Maintenance/Status", "Maintenance/Snapshot"];
        assert_eq!(answers, expected.map(|name| format!("/etcdserverpb.{name}")));
        assert!(!is_refused_by_learners("/althing/v1/status"));
        assert!(!is_refused_by_learners("/etcdserverpb.KV/Erase"), "unknown, to all alike");
    }

    #[test]
    fn what_is_not_in_the_table_is_for_root() {
        assert_eq!(need("/etcdserverpb.KV/Erase"), Need::Root);
        assert_eq!(need("/v3lockpb.Lock/Break"), Need::Root);
        assert_eq!(need("/v3lockpb.Lock/Lock"), Need::Nothing);
        assert_eq!(need("/etcdserverpb.Maintenance/Snapshot"), Need::Root);
        assert_eq!(need("/etcdserverpb.KV/Range"), Need::Nothing);
        assert_eq!(need("/grpc.health.v1.Health/Check"), Need::Nothing);
        assert_eq!(need("/althing/v1/status"), Need::Nothing);
    }
}
