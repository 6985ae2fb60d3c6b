use std::collections::BTreeMap;

use super::genesis_error::GenesisError;
use super::genesis_file::{GenesisFile, check};
use super::settings::{Bootstrap, Settings};
use super::urls::ListenUrl;
use super::voted_flags::voted;
use crate::chain::{Hello, InitialCluster, Parameters};
use crate::crypto::Scheme;

/// What the flags say of the members of a network that is to be founded; of this one alone if they
/// name none.
///
/// # Errors
/// etcd's, where the flags contradict each other.
pub fn initial_cluster(settings: &Settings) -> Result<InitialCluster, GenesisError> {
    let Bootstrap { members: given, token, .. } = &settings.bootstrap;
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, url) in given {
        let urls = members.entry(name.clone()).or_default();
        // Spelled as the advertised URLs are.
        urls.push(ListenUrl::parse(url).map_or_else(|_| url.clone(), |url| url.to_string()));
    }
    if given.is_empty() {
        members.insert(settings.name.clone(), settings.peer.advertise.clone());
    }
    for urls in members.values_mut() {
        urls.sort();
        urls.dedup();
    }
    let mut advertise = settings.peer.advertise.clone();
    advertise.sort();
    let advertised = advertise.join(",");
    let Some(own) = members.get(&settings.name) else {
        return Err(GenesisError::Invalid(format!(
            "couldn't find local name {:?} in the initial cluster configuration",
            settings.name
        )));
    };
    if *own != advertise {
        let name = &settings.name;
        let missing = own.iter().find(|url| !advertise.contains(url));
        return Err(GenesisError::Invalid(match missing {
            Some(url) => format!(
                "--initial-cluster has {name}={url} but missing from \
                 --initial-advertise-peer-urls={advertised}"
            ),
            None => format!(
                "--initial-advertise-peer-urls has {advertised} but --initial-cluster gives \
                 {name} only {}",
                own.join(",")
            ),
        }));
    }
    Ok(InitialCluster { token: token.clone(), members })
}

/// What this member says of itself, by its flags.
#[must_use]
pub fn hello(settings: &Settings, cluster: &InitialCluster, scheme: &dyn Scheme) -> Hello {
    let (name, urls) = (settings.name.clone(), settings.client.advertise.clone());
    Hello::sign(cluster.seed(), name, urls, (parameters(settings), scheme))
}

/// The genesis that follows from all members' hellos, signed by this one.
///
/// # Errors
/// [`GenesisError::Invalid`] if a member says parameters that no network may have, or a name or URL
/// that is none.
pub fn one_owner(
    cluster: &InitialCluster,
    hellos: &BTreeMap<String, Hello>,
    scheme: &dyn Scheme,
) -> Result<GenesisFile, GenesisError> {
    let genesis = cluster.genesis(hellos);
    let genesis = genesis.ok_or_else(|| GenesisError::Invalid("a member is missing".into()))?;
    check(&genesis)?;
    let mut file = GenesisFile { genesis, signatures: BTreeMap::new() };
    let own = file.member_of(&scheme.public_key())?.id;
    let signature = scheme.sign(&file.genesis.signed_bytes());
    file.signatures.insert(own, signature);
    Ok(file)
}

/// The voted flags as the parameters of a new network (etcd-surface.md 4).
fn parameters(settings: &Settings) -> Parameters {
    let default = Parameters::default();
    Parameters {
        request_bytes_max: settings.client.request_bytes_max.unwrap_or(default.request_bytes_max),
        txn_ops_max: settings.client.txn_ops_max.unwrap_or(default.txn_ops_max),
        ..voted(settings, &default)
    }
}
