//! Users and roles between organisations, with the unmodified etcdctl: each has its own.

use conformance::client::field;
use conformance::network::{Network, Replica};
use conformance::peers::{self, eventually};

use crate::erasure::files_with;

/// etcdctl at a replica, with its organisation's client certificate; what it printed, or its complaint.
fn etcdctl(replica: &Replica, arguments: &[&str]) -> Result<String, String> {
    let tls = replica.tls();
    let output = peers::command("etcdctl")
        .arg(format!("--endpoints={}", replica.endpoint))
        .arg(format!("--cacert={}", tls.ca.display()))
        .arg(format!("--cert={}", tls.certificate.display()))
        .arg(format!("--key={}", tls.key.display()))
        .args(arguments)
        .output()
        .expect("etcdctl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn denied(result: &Result<String, String>) -> bool {
    result.as_ref().is_err_and(|error| error.contains("etcdserver: permission denied"))
}

#[test]
fn each_organisation_has_its_own_users() {
    if !peers::available("process::auth", &["etcdctl"]) {
        return;
    }
    let mut network = Network::start(4);
    let commands: [&[&str]; 7] = [
        &["user", "add", "root:the-word-that-root-knows"],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "app"],
        &["role", "grant-permission", "app", "readwrite", "--prefix=true", "/app/"],
        &["user", "add", "web:the-word-that-web-knows"],
        &["user", "grant-role", "web", "app"],
        &["auth", "enable"],
    ];
    for command in commands {
        etcdctl(&network.replicas[0], command).unwrap_or_else(|why| panic!("{command:?}: {why}"));
    }
    let web = |replica: &Replica, rest: &[&str]| {
        etcdctl(replica, &[&["--user=web:the-word-that-web-knows"], rest].concat())
    };
    let [acme, birch] = [&network.replicas[0], &network.replicas[1]];
    assert_eq!(web(acme, &["put", "/app/a", "1"]), Ok("OK".to_owned()));
    assert!(denied(&web(acme, &["put", "/other", "1"])));
    assert!(denied(&web(acme, &["get", "/app/", "--from-key"])));
    // The certificate names a client that is no user: it has no right.
    assert!(denied(&etcdctl(acme, &["put", "/app/a", "2"])));
    // Once it is a user's, the certificate is enough.
    let root = ["--user=root:the-word-that-root-knows"];
    for command in [
        &["user", "add", "acme-admin", "--no-password"][..],
        &["user", "grant-role", "acme-admin", "app"],
    ] {
        etcdctl(acme, &[&root[..], command].concat()).expect("root may");
    }
    assert_eq!(etcdctl(acme, &["put", "/app/a", "3"]), Ok("OK".to_owned()));
    assert!(denied(&etcdctl(acme, &["put", "/other", "3"])));
    // The other organisation has not switched its users on; nobody of it is locked out.
    assert_eq!(etcdctl(birch, &["put", "/other", "1"]), Ok("OK".to_owned()));
    let shown = etcdctl(birch, &["auth", "status"]).expect("anyone may ask");
    assert!(shown.contains("Authentication Status: false"), "{shown}");
    assert_eq!(etcdctl(birch, &["user", "list"]), Ok(String::new()));
    // Once it has, acme's user is nobody there, whatever right he has at home.
    for command in [commands[0], commands[1], commands[6]] {
        etcdctl(birch, command).unwrap_or_else(|why| panic!("{command:?}: {why}"));
    }
    let stranger = web(birch, &["put", "/app/a", "1"]);
    assert!(stranger.is_err_and(|error| error.contains("authentication failed")));
    // No file and no log line holds a password or a token.
    let login = "name:'web' password:'the-word-that-web-knows'";
    let token = field(&acme.client().call("Auth/Authenticate", login).expect("let in"), "token");
    let token = token.as_str().expect("text").split('.').next().expect("a secret").to_owned();
    for (secret, home) in [("the-word-that-", acme), (&token, acme), ("the-word-that-", birch)] {
        let held = files_with(home.home(), secret);
        assert!(held.is_empty(), "{held:?}");
    }
    // A restarted replica knows users and roles from its log, and the token's loss is made good.
    network.kill(0);
    network.launch(0);
    eventually("acme's users are back", || {
        web(&network.replicas[0], &["put", "/app/b", "1"]).is_ok()
    });
    assert!(denied(&web(&network.replicas[0], &["put", "/other", "1"])));
    crate::roots_become_equal(&network);
}
