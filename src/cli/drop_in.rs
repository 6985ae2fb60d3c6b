//! The identity of a replica that is started with etcd's flags and no genesis: a network of one,
//! whose key and genesis lie in `DATA-DIR/keys` from the first start on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::certificates;
use crate::config::{
    GenesisFile, Home, ListenUrl, SecretSeed, Settings, create_new, make_private_directory,
    one_owner, voted_differences,
};

const DIRECTORY: &str = "keys";

/// Names in a data directory that do not mean a log is there.
const HARMLESS: [&str; 3] = [DIRECTORY, "LOCK", "lost+found"];

/// The replica's key and network, made durable at the first start and never again.
pub(super) fn identity(settings: &mut Settings) -> anyhow::Result<(GenesisFile, SecretSeed)> {
    let data = settings.data_dir.clone();
    let home = Home::at(data.join(DIRECTORY));
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
    let file = if found || has_log {
        let path = home.genesis();
        GenesisFile::read(&path).with_context(|| path.display().to_string())?
    } else {
        let file = one_owner(settings, secret.public_key(), &secret.signer())?;
        create_new(&home.genesis(), file.to_json().as_bytes(), 0o600)?;
        file
    };
    file.check_sealed()?;
    let member = file.member_of(&secret.public_key())?;
    warn_of_differences(settings, &file, &member.name.clone());
    if settings.client.tls.automatic_years.is_some() {
        automatic_tls(settings, &home)?;
    }
    Ok((file, secret))
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

/// etcd's checks of `--initial-cluster`, and what of it is not there yet.
fn check_cluster(settings: &Settings) -> anyhow::Result<()> {
    let members = &settings.bootstrap.members;
    let names: BTreeSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    if !names.is_empty() && !names.contains(settings.name.as_str()) {
        bail!("couldn't find local name {:?} in the initial cluster configuration", settings.name);
    }
    if names.len() > 1 {
        bail!(
            "--initial-cluster names {} members; a network of one owner with more than one member \
             is not there yet: start one member alone, or found a network of organisations \
             (althing org init, althing genesis assemble; docs/operating/ceremony.md)",
            names.len()
        );
    }
    if settings.bootstrap.existing {
        bail!(
            "--initial-cluster-state=existing, but {} is empty: joining an existing network is not \
             there yet; give the --data-dir of a replica that was there before",
            settings.data_dir.display()
        );
    }
    let wrong = members.iter().find(|(_, url)| !settings.peer.advertise.contains(url));
    if let Some((name, url)) = wrong {
        bail!(
            "--initial-cluster has {name}={url} but missing from --initial-advertise-peer-urls={}",
            settings.peer.advertise.join(",")
        );
    }
    Ok(())
}

fn warn_of_differences(settings: &mut Settings, file: &GenesisFile, name: &str) {
    for flag in voted_differences(settings, &file.genesis.parameters) {
        settings.warnings.push(format!(
            "--{flag} has no effect: the network keeps the value it was started with; changing it is \
             not there yet"
        ));
    }
    if settings.name != name {
        settings.warnings.push(format!("--name has no effect: this replica was named {name}"));
        name.clone_into(&mut settings.name);
    }
    if file.genesis.members.iter().all(|m| m.client_urls != settings.client.advertise) {
        settings.warnings.push(
            "--advertise-client-urls: MemberList keeps showing the URLs of the first start".into(),
        );
    }
}

/// `--auto-tls`: a certificate of its own, made once.
fn automatic_tls(settings: &mut Settings, home: &Home) -> anyhow::Result<()> {
    let (certificate, key): (PathBuf, PathBuf) = (home.server_certificate(), home.server_key());
    if !certificate.exists() || !key.exists() {
        let urls = settings.client.listen.iter().map(|url| url.host.clone());
        let advertised = settings.client.advertise.iter();
        let advertised = advertised.filter_map(|url| Some(ListenUrl::parse(url).ok()?.host));
        let hosts: Vec<String> = urls.chain(advertised).collect();
        let years = settings.client.tls.automatic_years.unwrap_or(1);
        let pair = certificates::self_signed(&settings.name, &hosts, years)?;
        crate::config::replace(&key, pair.key.as_bytes(), 0o600)?;
        crate::config::replace(&certificate, pair.certificate.as_bytes(), 0o644)?;
    }
    settings.client.tls.certificate = Some(certificate);
    settings.client.tls.key = Some(key);
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
        identity(&mut settings).map(|(file, _)| (file, settings))
    }

    #[test]
    fn the_first_start_makes_a_network_and_every_later_one_keeps_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let (first, _) = start(&data, &["--name=a", "--quota-backend-bytes=8000000"]).expect("new");
        assert_eq!((first.quorum().n(), first.quorum().f()), (1, 0));
        assert_eq!(first.genesis.parameters.quota_bytes, 8_000_000);
        let (second, settings) =
            start(&data, &["--name=b", "--quota-backend-bytes=9000000"]).expect("the same again");
        assert_eq!(first, second);
        let warnings = settings.warnings.join("\n");
        assert!(warnings.contains("named a") && warnings.contains("--quota-backend-bytes"));
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
            (
                "--initial-cluster=default=http://127.0.0.1:2380,b=http://127.0.0.1:3380",
                "names 2 members",
            ),
            ("--initial-cluster=b=http://127.0.0.1:2380", "couldn't find local name"),
            ("--initial-cluster=default=http://127.0.0.1:9999", "missing from --initial-advertise"),
            ("--initial-cluster-state=existing", "joining an existing network"),
        ];
        for (flag, expected) in table {
            let why = start(&data, &[urls, flag]).expect_err(flag).to_string();
            assert!(why.contains(expected), "{flag}: {why}");
            assert!(!data.exists(), "nothing is made");
        }
        fs::create_dir_all(data.join("member/wal")).expect("made");
        let why = start(&data, &[]).expect_err("etcd's own").to_string();
        assert!(why.contains("data directory of etcd itself"), "{why}");
    }
}
