//! The identity of a replica that is started with etcd's flags and no genesis: its key, and the genesis
//! of its network of one owner, lie in `DATA-DIR/keys` from the first start on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};

use super::certificates;
use super::epoch::EpochFile;
use crate::chain::Hello;
use crate::codec::{Decode, Encode};
use crate::config::{
    GenesisFile, Home, ListenUrl, SecretSeed, Settings, create_new, hello, initial_cluster,
    make_private_directory, one_owner,
};
use crate::crypto::Scheme;
use crate::node::{Founder, Joined, Joiner};

const DIRECTORY: &str = "keys";

/// Names in a data directory that do not mean a log is there.
const HARMLESS: [&str; 3] = [DIRECTORY, "LOCK", "lost+found"];

/// What a start with etcd's flags alone amounts to.
pub(super) enum Start {
    /// The replica has its genesis.
    Founded(GenesisFile, SecretSeed),
    /// Its network is still to be founded, with the others of `--initial-cluster`.
    Founding(Box<Founder>, SecretSeed),
    /// It was added to a network that is there, and asks to be let in.
    Joining(Joiner, SecretSeed),
}

/// Where a replica of one owner keeps its key and its network.
pub(super) fn home(settings: &Settings) -> Home {
    Home::at(settings.data_dir.join(DIRECTORY))
}

/// The replica's key and network, made durable at the first start and never again.
pub(super) fn start(settings: &mut Settings) -> anyhow::Result<Start> {
    let data = settings.data_dir.clone();
    let home = home(settings);
    let used = entries(&data)?;
    if used.iter().any(|name| name == "member") {
        bail!(
            "{} is a data directory of etcd itself (it has member/), which Althing cannot read; \
             give another --data-dir",
            data.display()
        );
    }
    let has_log = used.iter().any(|name| !HARMLESS.contains(&name.as_str()));
    let found = home.genesis().exists();
    if !found && !has_log {
        check_cluster(settings)?;
    }
    if has_log && !home.directory().exists() {
        bail!(
            "{} holds a log but no {DIRECTORY}/: its replica was started with --genesis and --home; \
             give these again, or another --data-dir",
            data.display()
        );
    }
    if used.is_empty() {
        make_private(&data, settings)?;
    }
    make_private_directory(home.directory())?;
    let secret = if found || has_log || home.replica_key().symlink_metadata().is_ok() {
        SecretSeed::load(&home.replica_key(), settings.allow_loose_permissions)?
    } else {
        let secret = SecretSeed::draw().context("the system gives no random bytes")?;
        secret.save(&home.replica_key())?;
        secret
    };
    let signed = if found || has_log {
        let path = home.genesis();
        Some(GenesisFile::read(&path).with_context(|| path.display().to_string())?)
    } else {
        None
    };
    automatic_tls(settings, &home)?;
    match signed {
        Some(file) if file.check_sealed().is_ok() || has_log => {
            file.check_sealed()?;
            Ok(Start::Founded(file, secret))
        }
        None if settings.bootstrap.existing => {
            Ok(Start::Joining(joiner(settings, &secret)?, secret))
        }
        signed => founding(settings, &home, secret, signed),
    }
}

/// A member that was added by its peer URLs; the others of `--initial-cluster` are asked.
fn joiner(settings: &Settings, secret: &SecretSeed) -> anyhow::Result<Joiner> {
    let cluster = initial_cluster(settings)?;
    let own = &settings.name;
    let others = cluster.members.iter().filter(|(name, _)| *name != own);
    let others: Vec<_> = others.map(|(name, urls)| (name.clone(), urls.join(","))).collect();
    let urls = cluster.members.get(own).cloned().unwrap_or_default();
    Ok(Joiner {
        name: own.clone(),
        peer_address: urls.join(","),
        client_urls: settings.client.advertise.clone(),
        others,
        scheme: Arc::new(secret.signer()),
    })
}

/// What a member was let in with, durable: the genesis last, for it says that the rest is there.
pub(super) fn keep(settings: &Settings, joined: &Joined) -> anyhow::Result<()> {
    let home = home(settings);
    EpochFile::of(joined.epochs.clone()).write(&home.epochs(), &joined.file.genesis)?;
    create_new(&home.genesis(), joined.file.to_json().as_bytes(), 0o600)?;
    Ok(())
}

/// The first start of a network, or one that was cut off: alone it is founded at once.
fn founding(
    settings: &mut Settings,
    home: &Home,
    secret: SecretSeed,
    signed: Option<GenesisFile>,
) -> anyhow::Result<Start> {
    let cluster = initial_cluster(settings)?;
    if signed.as_ref().is_some_and(|file| file.genesis.salt != cluster.seed().0) {
        bail!(
            "--initial-cluster or --initial-cluster-token is not what this member signed the genesis \
             in {} with; give what was given then",
            home.directory().display()
        );
    }
    let scheme = secret.signer();
    let own = hello(settings, &cluster, &scheme);
    if cluster.members.len() == 1 {
        let hellos = BTreeMap::from([(own.name.clone(), own)]);
        let file = one_owner(&cluster, &hellos, &scheme)?;
        create_new(&home.genesis(), file.to_json().as_bytes(), 0o600)?;
        return Ok(Start::Founded(file, secret));
    }
    let own = kept_hello(home, own)?;
    settings.warnings.push(format!(
        "--initial-cluster with {} members: whoever answers at their peer URLs when the network is \
         founded is a member; see docs/operating/drop-in-etcd.md",
        cluster.members.len()
    ));
    let scheme: Arc<dyn Scheme> = Arc::new(scheme);
    let founder = Founder { cluster, hello: own, scheme, signed, genesis: home.genesis() };
    Ok(Start::Founding(Box::new(founder), secret))
}

/// What this member said of itself before, if it was to the same members; durable before it is said.
fn kept_hello(home: &Home, own: Hello) -> anyhow::Result<Hello> {
    let path = home.file("hello");
    if let Ok(bytes) = std::fs::read(&path) {
        let kept = Hello::from_bytes(bytes.into());
        let kept = kept.ok().filter(|kept| kept.holds() && kept.key == own.key);
        let kept = kept.with_context(|| {
            format!("{} is damaged; bring the file back from its backup", path.display())
        })?;
        if kept.seed == own.seed && kept.name == own.name {
            return Ok(kept);
        }
    }
    crate::config::replace(&path, &own.to_bytes(), 0o600)?;
    Ok(own)
}

/// An empty directory that others could read, as `mkdir` makes it, is closed to them: etcd starts in
/// it, and so does its drop-in. One that holds anything is left for `storage` to judge.
fn make_private(data: &Path, settings: &mut Settings) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = data.metadata() else { return Ok(()) };
    if metadata.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))
            .with_context(|| format!("--data-dir {}: chmod 700 fails", data.display()))?;
        let warning = format!("--data-dir {} is now 0700: others could read it", data.display());
        settings.warnings.push(warning);
    }
    Ok(())
}

fn entries(data: &Path) -> anyhow::Result<Vec<String>> {
    let listed = match std::fs::read_dir(data) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("--data-dir {} cannot be read", data.display()))?,
    };
    listed
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()
        .with_context(|| format!("--data-dir {} cannot be read", data.display()))
}

/// What contradicts itself in `--initial-cluster`, before anything is written.
fn check_cluster(settings: &Settings) -> anyhow::Result<()> {
    let cluster = initial_cluster(settings)?;
    if settings.bootstrap.existing && cluster.members.len() < 2 {
        bail!(
            "--initial-cluster-state=existing, but {} is empty and --initial-cluster names no other \
             member to ask",
            settings.data_dir.display()
        );
    }
    Ok(())
}

/// Says which flags count no more, now that there is a genesis and this replica is called `name`.
pub(super) fn compare_with(settings: &mut Settings, file: &GenesisFile, name: &str) {
    if settings.name != name {
        settings.warnings.push(format!("--name has no effect: this replica was named {name}"));
        name.clone_into(&mut settings.name);
    }
    let joined = !file.genesis.members.iter().any(|member| member.name == settings.name);
    if !joined && file.genesis.members.iter().all(|m| m.client_urls != settings.client.advertise) {
        settings.warnings.push(
            "--advertise-client-urls: MemberList keeps showing the URLs of the first start".into(),
        );
    }
}

/// `--auto-tls` and `--peer-auto-tls`: certificates of its own, each made once.
fn automatic_tls(settings: &mut Settings, home: &Home) -> anyhow::Result<()> {
    let Settings { name, client, peer, .. } = settings;
    if client.tls.automatic {
        let files = (home.server_certificate(), home.server_key());
        let hosts = hosts(&client.listen, &client.advertise);
        made_once(&files, (name, &hosts, client.tls.self_signed_years))?;
        (client.tls.certificate, client.tls.key) = (Some(files.0), Some(files.1));
    }
    if peer.tls.automatic {
        let files = (home.file("peer.crt"), home.file("peer.key"));
        let hosts = hosts(&peer.listen, &peer.advertise);
        made_once(&files, (name, &hosts, client.tls.self_signed_years))?;
        peer.tls.certificate = Some(files);
    }
    Ok(())
}

fn hosts(listen: &[ListenUrl], advertise: &[String]) -> Vec<String> {
    let advertised = advertise.iter().filter_map(|url| Some(ListenUrl::parse(url).ok()?.host));
    listen.iter().map(|url| url.host.clone()).chain(advertised).collect()
}

fn made_once(
    (certificate, key): &(PathBuf, PathBuf),
    (name, hosts, years): (&str, &[String], u16),
) -> anyhow::Result<()> {
    if !certificate.exists() || !key.exists() {
        let pair = certificates::self_signed(name, hosts, years)?;
        crate::config::replace(key, pair.key.as_bytes(), 0o600)?;
        crate::config::replace(certificate, pair.certificate.as_bytes(), 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::KeyError;

    fn settings(data: &Path, more: &[&str]) -> Settings {
        let mut arguments = vec![format!("--data-dir={}", data.display())];
        arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
        Settings::parse(&arguments, &[]).expect("good flags")
    }

    fn start(data: &Path, more: &[&str]) -> anyhow::Result<(GenesisFile, Settings)> {
        let mut settings = settings(data, more);
        match super::start(&mut settings)? {
            Start::Founded(file, secret) => {
                let name = file.member_of(&secret.public_key())?.name.clone();
                compare_with(&mut settings, &file, &name);
                Ok((file, settings))
            }
            Start::Founding(..) => bail!("it founds a network with others"),
            Start::Joining(..) => bail!("it joins one"),
        }
    }

    #[test]
    fn the_first_start_makes_a_network_and_every_later_one_keeps_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let (first, _) = start(&data, &["--name=a", "--quota-backend-bytes=8000000"]).expect("new");
        assert_eq!((first.quorum().n(), first.quorum().f()), (1, 0));
        assert_eq!(first.genesis.parameters.quota_bytes, 8_000_000);
        let (second, settings) = start(&data, &["--name=b"]).expect("the same again");
        assert_eq!(first, second);
        assert!(settings.warnings.join("\n").contains("named a"));
    }

    #[test]
    fn a_lost_identity_is_never_made_anew() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path();
        start(data, &[]).expect("new");
        let key = data.join("keys/replica.key");
        let kept = fs::read(&key).expect("a key");
        fs::remove_file(&key).expect("removed");
        let why = start(data, &[]).expect_err("the genesis is there");
        assert!(matches!(why.downcast_ref(), Some(KeyError::Missing(_))), "{why}");
        fs::remove_dir_all(data.join("keys")).expect("removed");
        fs::write(data.join("log.1"), b"a log").expect("written");
        let why = start(data, &[]).expect_err("a log is there").to_string();
        assert!(why.contains("holds a log but no keys/"), "{why}");
        fs::remove_file(data.join("log.1")).expect("removed");
        // Ended between key and genesis: the key stays, the genesis follows from it.
        fs::create_dir_all(data.join("keys")).expect("made");
        fs::remove_dir_all(data.join("keys")).expect("removed");
        make_private_directory(&data.join("keys")).expect("made");
        create_new(&key, &kept, 0o600).expect("written");
        start(data, &[]).expect("resumed");
        assert_eq!(fs::read(&key).expect("a key"), kept);
    }

    #[test]
    fn what_is_not_there_yet_is_said_before_anything_is_written() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let urls = "--initial-advertise-peer-urls=http://127.0.0.1:2380";
        let table = [
            ("--initial-cluster=b=http://127.0.0.1:2380", "couldn't find local name"),
            ("--initial-cluster=default=http://127.0.0.1:9999", "missing from --initial-advertise"),
            ("--initial-cluster-state=existing", "names no other"),
        ];
        for (flag, expected) in table {
            let why = start(&data, &[urls, flag]).expect_err(flag).to_string();
            assert!(why.contains(expected), "{flag}: {why}");
            assert!(!data.exists(), "nothing is made");
        }
        let two = "--initial-cluster=default=http://127.0.0.1:2380,b=http://127.0.0.1:3380";
        let why = start(&data, &[urls, two]).expect_err("two found it together").to_string();
        assert!(why.contains("with others"), "{why}");
        fs::remove_dir_all(&data).expect("removed");
        fs::create_dir_all(data.join("member/wal")).expect("made");
        let why = start(&data, &[]).expect_err("etcd's own").to_string();
        assert!(why.contains("data directory of etcd itself"), "{why}");
    }
}
