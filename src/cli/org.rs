//! `althing org init`: an organisation's keys, certificates and public file.

use std::path::PathBuf;

use anyhow::bail;

use super::identity::{Plan, create};
use super::output::{Failure, say};
use crate::config::{Home, valid_name};

/// An organisation's own things.
#[derive(clap::Subcommand)]
pub(super) enum Org {
    /// Make keys, certificates and NAME.public.json in a new home; the public file alone travels.
    Init(Init),
}

#[derive(clap::Args)]
pub(super) struct Init {
    /// The organisation's name.
    #[arg(long)]
    name: String,
    /// Where its keys and certificates will lie; made 0700.
    #[arg(long, env = "ALTHING_HOME")]
    home: PathBuf,
    /// Where its clients reach its replica, https://HOST:PORT; may be repeated.
    #[arg(long = "client-url", required = true, value_delimiter = ',')]
    client_urls: Vec<String>,
    /// Where other organisations' replicas reach its replica, HOST:PORT.
    #[arg(long = "peer-addr")]
    peer_address: String,
    /// The home of another replica of this organisation: its authority signs this one's certificates
    /// too, so that a client reaches both with one certificate.
    #[arg(long)]
    authority: Option<PathBuf>,
}

pub(super) fn run(org: Org) -> Result<(), Failure> {
    let Org::Init(init) = org;
    Ok(make(init)?)
}

fn make(init: Init) -> anyhow::Result<()> {
    if !valid_name(&init.name) {
        bail!(
            "--name {:?}: a name is 1 to 63 letters, digits, '-', '.' or '_', the first a letter \
             or digit",
            init.name
        );
    }
    let home = Home::at(&init.home);
    let Init { name, client_urls, peer_address, authority, .. } = init;
    let plan = Plan { name, client_urls, peer_address, authority };
    let public = create(&home, &plan)?;
    let directory = home.directory().display();
    say!("{} has a home: {directory}", plan.name);
    say!("  replica key     {}", public.key);
    for key in &public.governance_keys {
        say!(
            "  governance key  {key} (governance.key: move it offline once the genesis is signed)"
        );
    }
    let travels = home.public_file(&plan.name);
    say!("Give {} to the others; no other file ever leaves this directory.", travels.display());
    Ok(())
}
