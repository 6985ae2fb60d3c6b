//! The demo's table: who runs where, who is ready, who is primary.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::state::{Organisation, State};
use crate::cli::genesis::promise;
use crate::cli::http::{Endpoint, Http};
use crate::config::Home;
use crate::types::Quorum;

pub(super) fn http(home: &Path, organisation: &Organisation) -> anyhow::Result<Http> {
    let files = Home::at(home.join(&organisation.name));
    Http::new(&Endpoint::of_home(&organisation.client_url(), &files))
}

/// Whether a replica says that it is ready to serve.
pub(super) async fn is_ready(http: &Http) -> bool {
    let answer = http.ask(Method::GET, "/readyz", Duration::from_secs(2)).await;
    answer.is_ok_and(|answer| answer.status == 200)
}

/// One line per organisation.
pub(super) async fn lines(home: &Path, state: &State) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for organisation in &state.organisations {
        let what = match organisation.running() {
            None => "stopped".to_owned(),
            Some(_) => {
                let http = http(home, organisation)?;
                let ready = if is_ready(&http).await { "ready" } else { "not ready" };
                let status = http.json("/althing/v1/status", Duration::from_secs(2)).await;
                format!("{ready:<9}  {}", remarks(&status.unwrap_or_default()))
            }
        };
        let line = format!("{:<6} {}  {what}", organisation.name, organisation.client_url());
        lines.push(line.trim_end().to_owned());
    }
    Ok(lines)
}

fn remarks(status: &Value) -> String {
    let own = status.get("name");
    let mut remarks = Vec::new();
    if own.is_some() && own == status.get("primary") {
        remarks.push("primary");
    }
    remarks.join("  ")
}

/// What stands below the table.
pub(super) fn footer(home: &Path, shown_home: &Path, program: &Path) -> String {
    let quorum = Quorum::of(super::network::NAMES.len());
    format!(
        "{} Keys and data: {} (delete it to reset)\n\
         try, in another terminal: eval \"$({} env acme)\"; etcdctl put hello world",
        promise(quorum.n(), quorum.f()),
        shown_home.display(),
        command(home, shown_home, program)
    )
}

/// How this demo's commands begin, wherever they are typed.
pub(super) fn command(home: &Path, shown_home: &Path, program: &Path) -> String {
    let program = program.display();
    if shown_home == Path::new("./althing-demo") {
        format!("{program} demo")
    } else {
        format!("{program} demo --home {}", home.display())
    }
}
