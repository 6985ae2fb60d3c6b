//! Which replica a command asks, and as whom.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::http::Endpoint;
use crate::config::{Home, PublicFile};

/// Which replica to ask.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Connection {
    /// The organisation's directory: its replica, with its client certificate.
    #[arg(long, env = "ALTHING_HOME")]
    home: Option<PathBuf>,
    /// The replica's client URL, in place of the home's.
    #[arg(long, env = "ETCDCTL_ENDPOINTS", hide_env_values = true)]
    endpoint: Option<String>,
    /// Authority of the replica's certificate.
    #[arg(long, env = "ETCDCTL_CACERT")]
    cacert: Option<PathBuf>,
    /// Client certificate.
    #[arg(long, env = "ETCDCTL_CERT")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long = "key", env = "ETCDCTL_KEY")]
    client_key: Option<PathBuf>,
}

impl Connection {
    /// Flags and variables first, then the home, then a demo in this directory, then etcd's default
    /// address.
    pub fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let demo = Path::new("althing-demo/acme");
        let home = match (&self.home, &self.endpoint) {
            (Some(home), _) => Some(home.clone()),
            (None, None) if demo.is_dir() => Some(demo.to_path_buf()),
            (None, _) => None,
        };
        let given = self.endpoint.as_deref().and_then(|list| list.split(',').next());
        let given = given.map(with_scheme);
        let mut endpoint = match (&home, given) {
            (Some(home), Some(url)) => Endpoint::of_home(&url, &Home::at(home)),
            (Some(home), None) => Endpoint::of_home(&home_url(home)?, &Home::at(home)),
            (None, url) => {
                Endpoint { url: url.unwrap_or_else(|| "http://127.0.0.1:2379".into()), tls: None }
            }
        };
        match (&self.cacert, &self.cert, &self.client_key) {
            (None, None, None) => {}
            (Some(ca), Some(certificate), Some(key)) => {
                endpoint.tls = Some((ca.clone(), certificate.clone(), key.clone()));
            }
            _ => bail!("--cacert, --cert and --key belong together: all three or none"),
        }
        Ok(endpoint)
    }

    /// The home, if there is one.
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }
}

fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// Where the home's own replica takes clients, as its public file says.
fn home_url(home: &Path) -> anyhow::Result<String> {
    let listed = std::fs::read_dir(home).with_context(|| home.display().to_string())?;
    let public = |path: &PathBuf| path.to_string_lossy().ends_with(".public.json");
    let mut files: Vec<PathBuf> =
        listed.filter_map(|entry| Some(entry.ok()?.path())).filter(public).collect();
    files.sort();
    let [file] = files.as_slice() else {
        let n = files.len();
        bail!(
            "{} holds {n} public files (NAME.public.json), not one; give --endpoint",
            home.display()
        );
    };
    let public = PublicFile::read(file).with_context(|| file.display().to_string())?;
    let url = public.client_urls.first().cloned();
    url.with_context(|| format!("{} names no client URL; give --endpoint", file.display()))
}
