//! The ceremony with real files, as four people would do it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::cli::identity::{Plan, create};
use crate::config::KeyError;

struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new(names: &[&str]) -> Self {
        let scene = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        for (name, at) in names.iter().zip(0..) {
            let plan = Plan {
                name: (*name).to_owned(),
                client_urls: vec![format!("https://127.0.0.1:{}", 25_000 + at * 10)],
                peer_address: format!("127.0.0.1:{}", 25_001 + at * 10),
                authority: None,
            };
            create(&scene.home(name), &plan).expect("a home");
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn home(&self, name: &str) -> Home {
        Home::at(self.path(name))
    }

    fn assemble(&self, names: &[&str]) -> anyhow::Result<()> {
        let files: Vec<PathBuf> = names.iter().map(|n| self.home(n).public_file(n)).collect();
        assemble_files(&files, &self.path("genesis.json"), None)
    }

    fn sign(&self, name: &str) -> anyhow::Result<()> {
        let output = self.path(&format!("{name}.sig"));
        sign(&self.path("genesis.json"), &self.home(name), &output, false)
    }

    fn seal(&self, names: &[&str]) -> anyhow::Result<()> {
        let files: Vec<PathBuf> = names.iter().map(|n| self.path(&format!("{n}.sig"))).collect();
        seal(&self.path("genesis.json"), &files)
    }
}

const NAMES: [&str; 4] = ["acme", "birch", "cedar", "delta"];

#[test]
fn four_organisations_agree_and_no_secret_travels() {
    let scene = Scene::new(&NAMES);
    scene.assemble(&NAMES).expect("assembled");
    for name in NAMES {
        scene.sign(name).expect(name);
    }
    scene.seal(&NAMES).expect("sealed");
    let file = GenesisFile::read(&scene.path("genesis.json")).expect("read back");
    file.check_sealed().expect("all signed");
    assert_eq!(file.genesis.membership().quorum().f(), 1);

    for name in NAMES {
        let home = scene.home(name);
        for entry in fs::read_dir(home.directory()).expect("a home") {
            let entry = entry.expect("an entry");
            let secret = entry.path().extension().is_some_and(|extension| extension == "key");
            let mode = entry.metadata().expect("there").mode() & 0o777;
            assert_eq!(mode, if secret { 0o600 } else { 0o644 }, "{:?}", entry.path());
        }
        assert_eq!(home.directory().metadata().expect("there").mode() & 0o777, 0o700);
        let seed = fs::read_to_string(home.replica_key()).expect("a key");
        let seed = seed.lines().next().expect("a seed");
        for travels in
            ["genesis.json".to_owned(), format!("{name}.sig"), format!("{name}/{name}.public.json")]
        {
            let text = fs::read_to_string(scene.path(&travels)).expect("there");
            assert!(!text.contains(seed), "{travels}");
        }
    }
}

#[test]
fn a_home_is_never_overwritten() {
    let scene = Scene::new(&["acme"]);
    let before = fs::read(scene.home("acme").replica_key()).expect("a key");
    let plan = Plan {
        name: "acme".into(),
        client_urls: vec!["https://127.0.0.1:1".into()],
        peer_address: "127.0.0.1:2".into(),
        authority: None,
    };
    let why = create(&scene.home("acme"), &plan).expect_err("taken").to_string();
    assert!(why.contains("replica.key exists already"), "{why}");
    assert_eq!(fs::read(scene.home("acme").replica_key()).expect("a key"), before);
}

#[test]
fn a_seal_names_who_is_missing_and_changes_nothing() {
    let scene = Scene::new(&NAMES);
    scene.assemble(&NAMES).expect("assembled");
    scene.sign("acme").expect("signed");
    scene.sign("cedar").expect("signed");
    let before = fs::read(scene.path("genesis.json")).expect("there");
    let why = scene.seal(&["acme", "cedar"]).expect_err("two are missing").to_string();
    assert!(why.contains("birch, delta"), "{why}");
    assert_eq!(fs::read(scene.path("genesis.json")).expect("there"), before);
}

#[test]
fn nobody_signs_what_differs_from_its_own_file() {
    let scene = Scene::new(&NAMES);
    let public = scene.home("birch").public_file("birch");
    let honest = fs::read_to_string(&public).expect("there");
    fs::write(&public, honest.replace("127.0.0.1:25011", "127.0.0.1:6666")).expect("written");
    scene.assemble(&NAMES).expect("assembled");
    fs::write(&public, honest).expect("written");
    let why = scene.sign("birch").expect_err("another address").to_string();
    assert!(why.contains("other peer address for birch"), "{why}");
    scene.sign("acme").expect("acme's own part is right");
}

#[test]
fn strangers_and_lost_keys_are_refused() {
    let scene = Scene::new(&NAMES);
    scene.assemble(&["acme", "birch", "cedar"]).expect("assembled");
    let why = format!("{:#}", scene.sign("delta").expect_err("not a member"));
    assert!(why.contains("no member with this replica's key"), "{why}");
    fs::remove_file(scene.home("acme").replica_key()).expect("removed");
    let why = scene.sign("acme").expect_err("lost");
    assert!(matches!(why.downcast_ref(), Some(KeyError::Missing(_))), "{why}");
    assert!(!scene.home("acme").replica_key().exists(), "no key was made in its place");
}

#[test]
fn a_genesis_is_not_assembled_over_another() {
    let scene = Scene::new(&NAMES);
    scene.assemble(&NAMES).expect("assembled");
    let why = format!("{:#}", scene.assemble(&NAMES).expect_err("taken"));
    assert!(why.contains("genesis.json exists already"), "{why}");
    let why = format!("{:#}", {
        let twice =
            [scene.home("acme").public_file("acme"), scene.home("acme").public_file("acme")];
        assemble_files(&twice, &scene.path("other.json"), None).expect_err("twice the same")
    });
    assert!(why.contains("appears twice"), "{why}");
}
