use std::collections::BTreeMap;

use super::genesis_file::{GenesisError, GenesisFile, check};
use super::settings::Settings;
use super::urls::ListenUrl;
use crate::chain::{Genesis, GenesisMember, Ownership, Parameters};
use crate::crypto::{PublicKey, Scheme};
use crate::types::{Millis, OrgId, ReplicaId};

/// The genesis of a network of one replica, started with etcd's flags: a function of the flags and
/// the replica's key alone (consensus.md 2).
///
/// # Errors
/// [`GenesisError::Invalid`] if a voted flag lies beyond what a network may have.
pub fn one_owner(
    settings: &Settings,
    key: PublicKey,
    scheme: &dyn Scheme,
) -> Result<GenesisFile, GenesisError> {
    let genesis = Genesis {
        ownership: Ownership::One,
        demo: false,
        salt: [0; 32],
        created_ms: Millis(0),
        members: vec![GenesisMember {
            id: ReplicaId(0),
            organisation: OrgId(0),
            name: settings.name.clone(),
            key,
            governance_keys: Vec::new(),
            client_urls: settings.client.advertise.clone(),
            peer_address: peer_address(settings),
        }],
        parameters: parameters(settings),
    };
    check(&genesis)?;
    let signature = scheme.sign(&genesis.signed_bytes());
    let signatures = BTreeMap::from([(ReplicaId(0), signature)]);
    Ok(GenesisFile { genesis, signatures })
}

fn peer_address(settings: &Settings) -> String {
    let advertised = settings.peer.advertise.iter().find_map(|url| ListenUrl::parse(url).ok());
    match advertised {
        Some(ListenUrl { host, port: Some(port), .. }) if host.contains(':') => {
            format!("[{host}]:{port}")
        }
        Some(ListenUrl { host, port: Some(port), .. }) => format!("{host}:{port}"),
        _ => "localhost:2380".to_owned(),
    }
}

/// The voted flags as parameters (etcd-surface.md 4).
fn parameters(settings: &Settings) -> Parameters {
    let default = Parameters::default();
    Parameters {
        request_bytes_max: settings.client.request_bytes_max.unwrap_or(default.request_bytes_max),
        txn_ops_max: settings.client.txn_ops_max.unwrap_or(default.txn_ops_max),
        quota_bytes: settings.bootstrap.quota_bytes.unwrap_or(default.quota_bytes),
        view_timeout_ms: settings.bootstrap.view_timeout_ms.unwrap_or(default.view_timeout_ms),
        ..default
    }
}

/// The voted flags whose value the network, once started, does not have.
#[must_use]
pub fn voted_differences(settings: &Settings, in_force: &Parameters) -> Vec<&'static str> {
    let client = &settings.client;
    let flags = [
        ("quota-backend-bytes", settings.bootstrap.quota_bytes, in_force.quota_bytes),
        ("election-timeout", settings.bootstrap.view_timeout_ms, in_force.view_timeout_ms),
        // These two also bound what this replica admits: less than the network's is no difference.
        (
            "max-request-bytes",
            client
                .request_bytes_max
                .map(u64::from)
                .filter(|n| *n > in_force.request_bytes_max.into()),
            in_force.request_bytes_max.into(),
        ),
        (
            "max-txn-ops",
            client.txn_ops_max.map(u64::from).filter(|n| *n > in_force.txn_ops_max.into()),
            in_force.txn_ops_max.into(),
        ),
    ];
    let differs =
        |(_, given, network): &&(&str, Option<u64>, u64)| given.is_some_and(|g| g != *network);
    flags.iter().filter(differs).map(|(name, ..)| *name).collect()
}
