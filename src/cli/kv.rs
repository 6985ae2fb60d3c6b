//! `althing kv put|get`, for who has no etcdctl; it prints what etcdctl prints.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;

use super::connection::Connection;
use super::http::block_on;
use super::output::{Failure, say};
use crate::api::pb::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};

#[derive(clap::Subcommand)]
pub(super) enum Kv {
    /// Write a value.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Read a value.
    Get {
        /// The key.
        key: String,
        #[command(flatten)]
        connection: Connection,
    },
}

/// etcdctl's --command-timeout, and the time a request has here (7 s) in it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(kv: Kv) -> Result<(), Failure> {
    match kv {
        Kv::Put { key, value, connection } => {
            let request =
                PutRequest { key: key.into(), value: Bytes::from(value), ..PutRequest::default() };
            block_on(put(&connection, request))??;
            say!("OK");
        }
        Kv::Get { key, connection } => {
            let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
            for (key, value) in block_on(get(&connection, request))?? {
                let mut out = std::io::stdout().lock();
                // Bytes as they are: etcdctl does the same.
                out.write_all(&[&key[..], b"\n", &value[..], b"\n"].concat())?;
            }
        }
    }
    Ok(())
}

async fn put(connection: &Connection, request: PutRequest) -> anyhow::Result<()> {
    let endpoint = connection.endpoint()?;
    let mut client = KvClient::with_origin(endpoint.grpc()?, endpoint.url.parse()?);
    let answer = tokio::time::timeout(PATIENCE, client.put(request)).await;
    answer.context("no answer in time")?.map_err(|status| refusal(&endpoint.url, &status))?;
    Ok(())
}

async fn get(
    connection: &Connection,
    request: RangeRequest,
) -> anyhow::Result<Vec<(Bytes, Bytes)>> {
    let endpoint = connection.endpoint()?;
    let mut client = KvClient::with_origin(endpoint.grpc()?, endpoint.url.parse()?);
    let answer = tokio::time::timeout(PATIENCE, client.range(request)).await;
    let answer =
        answer.context("no answer in time")?.map_err(|status| refusal(&endpoint.url, &status))?;
    Ok(answer.into_inner().kvs.into_iter().map(|kv| (kv.key, kv.value)).collect())
}

fn refusal(url: &str, status: &tonic::Status) -> anyhow::Error {
    anyhow!("{url}: {} ({:?})", status.message(), status.code())
}
