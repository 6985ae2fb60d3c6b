//! A program: requests in one logical order, as data that can be cut down and printed.

use std::fmt;

use conformance::client;

/// Who asks; the tokens are each server's own.
pub const USERS: [&str; 4] = ["root", "u1", "u2", "u3"];

/// The lease of [`Step::Expire`].
pub const EXPIRES: i64 = 9;
/// Answered from what the server has itself.
const LOCAL: [&str; 5] = [
    "Lease/LeaseLeases",
    "Maintenance/Status",
    "Maintenance/Hash",
    "Maintenance/HashKV",
    "Maintenance/Alarm",
];

/// One request, or one step of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A unary call by a user, or without a token.
    Call { who: Option<usize>, method: &'static str, request: String },
    /// A server stream: its messages merged.
    Gather { who: Option<usize>, method: &'static str, request: String },
    /// Bytes that may be no message at all.
    Raw { method: &'static str, bytes: Vec<u8> },
    /// A token for this user, if the password is right.
    Login { user: usize, password: String },
    /// On watch stream `stream` of a user, opened by the first of these.
    Watch { who: Option<usize>, stream: usize, action: WatchAction },
    /// A keepalive stream with these leases asked in turn.
    KeepAlive { who: Option<usize>, leases: Vec<i64> },
    /// A lease of the shortest time, a transaction that may attach keys to it, and its end.
    Expire { who: Option<usize>, request: String },
    /// Every watch has shown what happened.
    Settle,
}

/// What is sent on a watch stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchAction {
    Create(String),
    Cancel(i64),
    Progress,
}

impl Step {
    /// How many operations: the request and, in a transaction, each compare and request of its.
    pub fn operations(&self) -> u64 {
        let inside = |request: &str| {
            let words = ["compare{", "request_put{", "request_range{", "request_delete_range{"];
            words.iter().map(|word| request.matches(word).count() as u64).sum::<u64>()
        };
        match self {
            Step::Call { request, .. } => 1 + inside(request),
            Step::KeepAlive { leases, .. } => leases.len() as u64,
            Step::Expire { request, .. } => 3 + inside(request),
            Step::Settle | Step::Watch { action: WatchAction::Progress, .. } => 0,
            Step::Gather { .. } | Step::Raw { .. } | Step::Login { .. } | Step::Watch { .. } => 1,
        }
    }

    /// Whether a replica may answer it from what it has, however old.
    pub fn may_be_stale(&self) -> bool {
        match self {
            Step::Call { method, request, .. } | Step::Gather { method, request, .. } => {
                let writes = ["request_put", "request_delete"].iter().any(|w| request.contains(w));
                request.contains("serializable:true")
                    || (*method == "KV/Txn" && !writes)
                    || LOCAL.contains(method)
            }
            // Whatever the bytes may mean. A renewal's header is from before it (v3rpc/lease.go).
            Step::Raw { .. } | Step::KeepAlive { .. } => true,
            Step::Login { .. } | Step::Settle => false,
            Step::Watch { .. } | Step::Expire { .. } => false,
        }
    }
}

impl fmt::Display for Step {
    /// In the language of `scripts/`, but for raw bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |who: &Option<usize>| match who {
            Some(user) => format!("as {}: ", USERS[*user]),
            None => String::new(),
        };
        match self {
            Step::Call { who, method, request } => write!(f, "{}{method} {request}", by(who)),
            Step::Gather { who, method, request } => {
                write!(f, "{}gather {method} {request}", by(who))
            }
            Step::Raw { method, bytes } => write!(f, "raw {method} {}", client::quoted(bytes)),
            Step::Login { user, password } => write!(f, "login {} '{password}'", USERS[*user]),
            Step::Watch { who, stream, action } => match action {
                WatchAction::Create(request) => {
                    write!(f, "{}send w{stream} create_request{{{request}}}", by(who))
                }
                WatchAction::Cancel(id) => {
                    write!(f, "{}send w{stream} cancel_request{{watch_id:{id}}}", by(who))
                }
                WatchAction::Progress => write!(f, "send w{stream} progress_request{{}}"),
            },
            Step::KeepAlive { who, leases } => write!(f, "{}keep alive {leases:?}", by(who)),
            Step::Expire { who, request } => {
                write!(
                    f,
                    "{}Lease/LeaseGrant TTL:1 ID:{EXPIRES}; KV/Txn {request}; its end",
                    by(who)
                )
            }
            Step::Settle => write!(f, "read every stream"),
        }
    }
}
