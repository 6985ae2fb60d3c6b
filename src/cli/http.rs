//! HTTPS to one replica, as one of its organisation's clients.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::config::Home;
use crate::tls::{ClientFiles, client_config};

const ANSWER_BYTES_MAX: usize = 32 << 20;

/// How to reach a replica.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// https://HOST:PORT or http://HOST:PORT.
    pub url: String,
    /// Authority, certificate and key; None for http.
    pub tls: Option<(PathBuf, PathBuf, PathBuf)>,
}

impl Endpoint {
    /// An organisation's own replica, with the client certificate of its home.
    pub fn of_home(url: &str, home: &Home) -> Self {
        let files = (home.ca_certificate(), home.client_certificate(), home.client_key());
        Self { url: url.to_owned(), tls: url.starts_with("https://").then_some(files) }
    }

    /// A client for gRPC: HTTP/2 alone.
    pub fn grpc(&self) -> anyhow::Result<Client<HttpsConnector<HttpConnector>, tonic::body::Body>> {
        let connector = self.connector(true)?;
        Ok(Client::builder(TokioExecutor::new()).http2_only(true).build(connector))
    }

    fn connector(&self, http2_only: bool) -> anyhow::Result<HttpsConnector<HttpConnector>> {
        let files = match &self.tls {
            Some((ca, certificate, key)) => ClientFiles {
                trusted_ca: ca.clone(),
                identity: Some((certificate.clone(), key.clone())),
            },
            None if self.url.starts_with("https://") => {
                bail!("{} needs --cacert, --cert and --key, or --home", self.url);
            }
            None => {
                let mut plain = HttpConnector::new();
                plain.enforce_http(false);
                let none = rustls::RootCertStore::empty();
                let config = rustls::ClientConfig::builder_with_provider(provider())
                    .with_safe_default_protocol_versions()
                    .context("TLS")?
                    .with_root_certificates(none)
                    .with_no_client_auth();
                return Ok(HttpsConnector::from((plain, config)));
            }
        };
        let builder =
            HttpsConnectorBuilder::new().with_tls_config(client_config(&files)?).https_only();
        Ok(if http2_only {
            builder.enable_http2().build()
        } else {
            builder.enable_http1().enable_http2().build()
        })
    }
}

fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A replica's HTTP side.
#[derive(Clone)]
pub(super) struct Http {
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What a replica answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

impl Http {
    pub fn new(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let client = Client::builder(TokioExecutor::new()).build(endpoint.connector(false)?);
        Ok(Self { base: endpoint.url.trim_end_matches('/').to_owned(), client })
    }

    /// One request, to the end of its answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        patience: Duration,
    ) -> anyhow::Result<Answer> {
        self.send(method, path, (Bytes::new(), patience)).await
    }

    /// One request with a body.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        (body, patience): (Bytes, Duration),
    ) -> anyhow::Result<Answer> {
        let uri = format!("{}{path}", self.base);
        let request = Request::builder().method(method).uri(&uri).body(Full::new(body))?;
        let exchange = async {
            let response = self.client.request(request).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|why| anyhow::anyhow!("{why}"))?.to_bytes();
            anyhow::Ok(Answer { status, body })
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(done) => done.with_context(|| format!("{uri} does not answer")),
            Err(_) => bail!("{uri} does not answer within {} ms", patience.as_millis()),
        }
    }

    /// A JSON answer; anything but 200 is an error with what the replica said.
    pub async fn json(&self, path: &str, patience: Duration) -> anyhow::Result<serde_json::Value> {
        let answer = self.ask(Method::GET, path, patience).await?;
        if answer.status != 200 {
            bail!("{}{path} answered {}: {}", self.base, answer.status, answer.text());
        }
        serde_json::from_slice(&answer.body)
            .with_context(|| format!("{}{path} did not answer JSON", self.base))
    }
}

/// A runtime for commands: one thread is enough.
pub(super) fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the runtime")?.block_on(future))
}
