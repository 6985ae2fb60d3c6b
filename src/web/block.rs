use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{Method, StatusCode};
use serde::Serialize;

use super::Web;
use super::answer::{JSON, failure, found, method_not_allowed};
use crate::chain::{BlockHeader, Certificate, Entry};
use crate::codec::Encode;
use crate::types::Height;

/// A block as `/althing/v1/block/HEIGHT` shows it: everything but keys and values. The header's own
/// bytes are there too, so that whoever wants to can hash them.
#[derive(Serialize)]
struct BlockPage {
    hash: String,
    header_hex: String,
    height: u64,
    epoch: u64,
    view: u64,
    proposer: String,
    time_ms: u64,
    parent: String,
    body_root: String,
    ops: u32,
    exec_height: u64,
    exec_root: String,
    config_hash: String,
    entries: Vec<EntryPage>,
    /// Of the nearest certified block at or above this one.
    certificate: CertificatePage,
    /// Headers above this block, up to the certified one.
    headers_hex: Vec<String>,
}

#[derive(Serialize)]
struct EntryPage {
    kind: &'static str,
    replica: String,
    ops: usize,
    /// The distinct common names of its clients.
    clients: Vec<String>,
}

#[derive(Serialize)]
struct CertificatePage {
    height: u64,
    view: u64,
    block_hash: String,
    signers: Vec<String>,
    hex: String,
}

pub(super) async fn block(
    State(web): State<Web>,
    method: Method,
    Path(height): Path<String>,
) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let Ok(height) = height.parse::<u64>() else {
        return failure(StatusCode::BAD_REQUEST, "a height is a number from 1");
    };
    let block = match web.handle.block(Height(height)).await {
        Ok(Some(block)) => block,
        Ok(None) => {
            let text = format!("this replica's log holds no certified block {height}");
            return failure(StatusCode::NOT_FOUND, &text);
        }
        Err(error) => return failure(StatusCode::INTERNAL_SERVER_ERROR, &error),
    };
    let page = page(&web, &block.block.header, &block.block.entries, &block.certificate);
    let headers_hex = block.headers.iter().map(|header| hex(&header.to_bytes())).collect();
    let page = BlockPage { headers_hex, ..page };
    let text = serde_json::to_string(&page).expect("plain fields have a JSON form");
    found(JSON, Body::from(text + "\n"))
}

fn page(
    web: &Web,
    header: &BlockHeader,
    entries: &[Entry],
    certificate: &Certificate,
) -> BlockPage {
    BlockPage {
        hash: header.hash().to_string(),
        header_hex: hex(&header.to_bytes()),
        height: header.height.0,
        epoch: header.epoch.0,
        view: header.view.0,
        proposer: web.name(header.proposer),
        time_ms: header.time_ms.0,
        parent: header.parent.to_string(),
        body_root: header.body_root.to_string(),
        ops: header.n_ops,
        exec_height: header.exec_height.0,
        exec_root: header.exec_root.to_string(),
        config_hash: header.config_hash.to_string(),
        entries: entries.iter().map(|entry| entry_page(web, entry)).collect(),
        certificate: CertificatePage {
            height: certificate.height.0,
            view: certificate.view.0,
            block_hash: certificate.block_hash.to_string(),
            signers: certificate.signatures.iter().map(|one| web.name(one.replica)).collect(),
            hex: hex(&certificate.to_bytes()),
        },
        headers_hex: Vec::new(),
    }
}

fn entry_page(web: &Web, entry: &Entry) -> EntryPage {
    let (kind, replica, ops, mut clients) = match entry {
        Entry::Bundle(bundle) => {
            let names = bundle.skeletons.iter().map(|skeleton| &skeleton.author.client_name);
            let names = names.map(|name| String::from_utf8_lossy(name).into_owned());
            ("bundle", bundle.origin, bundle.skeletons.len(), names.collect())
        }
        Entry::Rejoin(rejoin) => ("rejoin", rejoin.replica, 1, Vec::new()),
    };
    clients.sort_unstable();
    clients.dedup();
    EntryPage { kind, replica: web.name(replica), ops, clients }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
