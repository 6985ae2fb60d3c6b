//! Members and parameters: who they are, how every epoch ended, and the way in for a signed change.
//! The change carries its own authority; whoever may write here may hand it in.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Method, StatusCode};

use super::Web;
use super::answer::{JSON, TEXT, allow, failure, found, method_not_allowed};
use crate::chain::{ConfigChange, Network, Ownership, Parameters};
use crate::codec::{Decode, Encode};
use crate::node::ChangeError;
use crate::types::Millis;

/// A change with the votes of 128 organisations is shorter.
const CHANGE_BYTES_MAX: usize = 64 << 10;

#[derive(serde::Serialize)]
struct NetworkPage {
    epoch: u64,
    config_hash: String,
    n: usize,
    f: usize,
    q: usize,
    unix_ms: u64,
    /// The canonical bytes, which a signer's own tool reads.
    bytes: String,
    members: Vec<MemberPage>,
    parameters: serde_json::Value,
}

#[derive(serde::Serialize)]
struct MemberPage {
    replica: u16,
    name: String,
    organisation: String,
    role: &'static str,
    key: String,
    client_urls: Vec<String>,
    peer_address: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn members(network: &Network) -> Vec<MemberPage> {
    let members = network.membership.members.iter();
    let known = members.filter_map(|member| Some((member, network.addresses.get(&member.id)?)));
    let page = known.map(|(member, address)| MemberPage {
        replica: member.id.0,
        name: address.name.clone(),
        organisation: network
            .organisations
            .get(&member.organisation)
            .map_or_else(String::new, |organisation| organisation.name.clone()),
        role: match (member.voting, address.observer) {
            (true, _) => "voter",
            (false, true) => "observer",
            (false, false) => "learner",
        },
        key: member.key.to_string(),
        client_urls: address.client_urls.clone(),
        peer_address: address.peer_address.clone(),
    });
    page.collect()
}

fn parameters(parameters: &Parameters) -> serde_json::Value {
    serde_json::json!({
        "window": parameters.window,
        "time_bound_ms": parameters.time_bound_ms,
        "view_timeout_ms": parameters.view_timeout_ms,
        "request_bytes_max": parameters.request_bytes_max,
        "txn_ops_max": parameters.txn_ops_max,
        "quota_bytes": parameters.quota_bytes,
        "checkpoint_log_bytes": parameters.checkpoint_log_bytes,
        "checkpoint_state_factor": parameters.checkpoint_state_factor,
        "tenure_blocks": parameters.tenure_blocks,
    })
}

/// Members and parameters in force, as this replica has executed them.
pub(super) async fn network(State(web): State<Web>, method: Method) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let (network, Millis(unix_ms)) =
        web.handle.read(|shared| (shared.state.network().clone(), shared.state.counters.time_ms));
    let quorum = network.membership.quorum();
    let page = NetworkPage {
        epoch: network.membership.epoch.0,
        config_hash: network.membership.config_hash().to_string(),
        n: quorum.n(),
        f: quorum.f(),
        q: quorum.q(),
        unix_ms,
        bytes: hex(&network.to_bytes()),
        members: members(&network),
        parameters: parameters(&network.membership.parameters),
    };
    let text = serde_json::to_string(&page).expect("plain fields have a JSON form");
    found(JSON, Body::from(text + "\n"))
}

/// A list of hexadecimal epoch proofs, from the first epoch's end on.
pub(super) async fn epochs(State(web): State<Web>, method: Method) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let proofs: Vec<String> =
        web.handle.epochs().iter().map(|proof| hex(&proof.to_bytes())).collect();
    let text = serde_json::to_string(&proofs).expect("a list of texts has a JSON form");
    found(JSON, Body::from(text + "\n"))
}

/// Orders a change: its canonical bytes are the request's body.
pub(super) async fn change(State(web): State<Web>, method: Method, body: Body) -> Response {
    if method != Method::POST {
        return allow("POST");
    }
    let Ok(bytes) = axum::body::to_bytes(body, CHANGE_BYTES_MAX).await else {
        return failure(StatusCode::PAYLOAD_TOO_LARGE, "a change is at most 64 KiB");
    };
    if web.handle.network().ownership == Ownership::One {
        // It carries no authority there, and would count as this replica's own word.
        let why = "a network of one owner changes by etcd's Member RPCs and its members' flags";
        return failure(StatusCode::FORBIDDEN, why);
    }
    let change = match ConfigChange::from_bytes(bytes) {
        Ok(change) => change,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &format!("no change: {error}")),
    };
    match web.handle.change(change).await {
        Ok((epoch, added)) => {
            let added = added.map_or_else(String::new, |id| format!(" replica {id}"));
            found(TEXT, Body::from(format!("epoch {epoch}{added}\n")))
        }
        Err(ChangeError::Refused(why)) => failure(StatusCode::CONFLICT, &why),
        Err(ChangeError::Node(error)) => {
            failure(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
    }
}
