use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

use super::files::{FileError, create_new};
use super::genesis_file::{from_hex, to_hex};
use crate::crypto::{Ed25519, PublicKey};

/// An organisation's directory: keys, certificates, genesis (ecosystem.md 2).
#[derive(Clone, Debug)]
pub struct Home {
    directory: PathBuf,
}

impl Home {
    /// At this path; nothing is read yet.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Signs votes and bundles.
    #[must_use]
    pub fn replica_key(&self) -> PathBuf {
        self.file("replica.key")
    }

    /// The replica's next key, while a rotation is under way.
    #[must_use]
    pub fn next_replica_key(&self) -> PathBuf {
        self.file("replica.key.next")
    }

    /// How every epoch ended, for a replica that joins or whose key was rotated.
    #[must_use]
    pub fn epochs(&self) -> PathBuf {
        self.file("epochs.json")
    }

    /// The snapshot of etcd that the network was founded on, if it was.
    #[must_use]
    pub fn initial_state(&self) -> PathBuf {
        self.file("initial.db")
    }

    /// Acts for the organisation; belongs offline.
    #[must_use]
    pub fn governance_key(&self) -> PathBuf {
        self.file("governance.key")
    }

    /// The certificate authority's key.
    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.file("ca.key")
    }

    /// Checks the server's and the clients' certificates.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.file("ca.crt")
    }

    /// What the replica shows to clients.
    #[must_use]
    pub fn server_certificate(&self) -> PathBuf {
        self.file("client-server.crt")
    }

    /// Its key.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.file("client-server.key")
    }

    /// What a client shows.
    #[must_use]
    pub fn client_certificate(&self) -> PathBuf {
        self.file("client.crt")
    }

    /// Its key.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.file("client.key")
    }

    /// The network's.
    #[must_use]
    pub fn genesis(&self) -> PathBuf {
        self.file("genesis.json")
    }

    /// What alone travels.
    #[must_use]
    pub fn public_file(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.public.json"))
    }
}

/// Why a key file was refused. None of these is ever answered by making a new key: a replica that
/// forgets its key is lost to its network (faults.md 5.2).
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not there.
    #[error("{0} is missing; no new key is made in its place: bring the file back from its backup")]
    Missing(PathBuf),
    /// The system refused.
    #[error("{0} cannot be read: {1}")]
    Unreadable(PathBuf, io::Error),
    /// A link leads somewhere else.
    #[error("{0} is a symbolic link; put the key file itself there")]
    Link(PathBuf),
    /// Not a file.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// Others may read it.
    #[error(
        "{path} has mode {mode:03o}; a {what} must be {wanted:03o}: chmod {wanted:03o} {path} \
             (or start with --allow-loose-permissions)"
    )]
    Mode {
        /// What.
        path: PathBuf,
        /// What it has.
        mode: u32,
        /// What it should have.
        wanted: u32,
        /// File or directory.
        what: &'static str,
    },
    /// Somebody else's.
    #[error(
        "{path} belongs to user {owner}, this process runs as user {own}: chown it, or start \
             as its owner"
    )]
    Owner {
        /// What.
        path: PathBuf,
        /// Whose.
        owner: u32,
        /// Who asks.
        own: u32,
    },
    /// Not what was written.
    #[error("{0} is damaged: {1}; bring the file back from its backup, no new key is made")]
    Damaged(PathBuf, &'static str),
}

/// A secret seed in memory, wiped when dropped; it has no `Debug`.
pub struct SecretSeed(Zeroizing<[u8; 32]>);

impl SecretSeed {
    /// Draws one from the system.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed)?;
        Ok(Self(seed))
    }

    /// The signer made of it.
    #[must_use]
    pub fn signer(&self) -> Ed25519 {
        Ed25519::from_seed(&self.0)
    }

    /// Its public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.signer().public_key()
    }

    /// Writes it, 0600: two lines, the seed and the public key that proves it whole.
    ///
    /// # Errors
    /// [`FileError`]; an existing file is never overwritten.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let seed = Zeroizing::new(to_hex(&*self.0));
        let text = Zeroizing::new(format!("{}\n{}\n", &*seed, self.public_key()));
        create_new(path, text.as_bytes(), 0o600)
    }

    /// Reads what [`SecretSeed::save`] wrote: a regular file 0600 in a directory 0700, both of this
    /// process's user. `loose` lifts the checks of mode and owner.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(path: &Path, loose: bool) -> Result<Self, KeyError> {
        let file = open_private(path, loose)?;
        let mut text = Zeroizing::new(String::with_capacity(256));
        let read = file.take(200).read_to_string(&mut text);
        let damaged = |why| KeyError::Damaged(path.to_path_buf(), why);
        match read {
            Err(why) if why.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged("it is not text"));
            }
            other => other.map_err(|why| KeyError::Unreadable(path.to_path_buf(), why))?,
        };
        let mut lines = text.lines();
        let (seed, public) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        let mut seed: [u8; 32] =
            from_hex(seed).ok_or_else(|| damaged("its first line is not 64 hexadecimal digits"))?;
        let secret = Self(Zeroizing::new(seed));
        seed.zeroize();
        let public: [u8; 32] = from_hex(public)
            .ok_or_else(|| damaged("its second line is not 64 hexadecimal digits"))?;
        if secret.public_key() != PublicKey(public) || lines.next().is_some() {
            return Err(damaged("its two lines, seed and public key, do not belong together"));
        }
        Ok(secret)
    }
}

fn open_private(path: &Path, loose: bool) -> Result<File, KeyError> {
    let unreadable = |why| KeyError::Unreadable(path.to_path_buf(), why);
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match path.symlink_metadata() {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            return Err(KeyError::Missing(path.to_path_buf()));
        }
        Ok(metadata) if metadata.is_symlink() => return Err(KeyError::Link(path.to_path_buf())),
        other => other.map_err(unreadable)?,
    };
    // No follow and no block: between the look above and here the name may have become a link or
    // a pipe.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).expect("open's flags are an int");
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(KeyError::NotAFile(path.to_path_buf()));
    }
    if !loose {
        check_private(path, &metadata, 0o600, "key file")?;
        check_private(parent, &parent.metadata().map_err(unreadable)?, 0o700, "key's directory")?;
    }
    Ok(file)
}

fn check_private(
    path: &Path,
    metadata: &std::fs::Metadata,
    wanted: u32,
    what: &'static str,
) -> Result<(), KeyError> {
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own {
        return Err(KeyError::Owner { path: path.to_path_buf(), owner: metadata.uid(), own });
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path: path.to_path_buf(), mode, wanted, what });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode set");
    }

    #[test]
    fn a_key_is_read_back_only_whole_private_and_in_place() {
        let home = tempfile::tempdir().expect("a temporary directory");
        set_mode(home.path(), 0o700);
        let path = home.path().join("replica.key");
        let load = |loose| SecretSeed::load(&path, loose);
        assert!(matches!(load(false), Err(KeyError::Missing(_))));
        let secret = SecretSeed::draw().expect("random bytes");
        secret.save(&path).expect("saved");
        assert!(load(false).is_ok_and(|read| read.public_key() == secret.public_key()));

        set_mode(&path, 0o640);
        assert!(matches!(load(false), Err(KeyError::Mode { mode: 0o640, .. })));
        assert!(load(true).is_ok(), "the override lifts the mode");
        set_mode(&path, 0o600);
        set_mode(home.path(), 0o755);
        assert!(matches!(load(false), Err(KeyError::Mode { mode: 0o755, .. })));
        set_mode(home.path(), 0o700);

        let linked = home.path().join("linked.key");
        symlink(&path, &linked).expect("linked");
        assert!(matches!(SecretSeed::load(&linked, true), Err(KeyError::Link(_))));
    }

    #[test]
    fn every_flipped_or_missing_byte_of_a_key_file_is_noticed() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let path = home.path().join("replica.key");
        SecretSeed::draw().expect("random bytes").save(&path).expect("saved");
        let whole = fs::read(&path).expect("readable");
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).expect("written");
            let read = SecretSeed::load(&path, true);
            // The last newline alone carries nothing.
            assert!(at == whole.len() - 1 || read.is_err(), "byte {at} flipped");
            fs::write(&path, &whole[..at]).expect("written");
            let read = SecretSeed::load(&path, true);
            assert!(at == whole.len() - 1 || read.is_err(), "cut at {at}");
        }
    }
}
