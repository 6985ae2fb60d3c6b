//! An organisation changes its certificates while its replica runs (faults.md O12): old and new ones count
//! as long as both are trusted, and no client notices. Between replicas each start makes a new TLS key,
//! so every test that restarts one covers that side.

use std::path::Path;
use std::time::Duration;

use conformance::certificates::{LOOPBACK, authority, holder};
use conformance::client::Client;
use conformance::cluster::TlsFiles;
use conformance::network::Network;
use conformance::peers::{self, eventually};

use crate::load::Load;
use crate::{MINUTE, WARM_UP, roots_become_equal};

const NEXT: &str = "the next authority";

/// The listener's certificate is out of date: its clients refuse it, and the replicas order on, because they
/// know each other by keys that no certificate's time touches.
#[test]
fn an_expired_certificate_stops_no_ordering_and_is_shown() {
    if !peers::available("process::expired_certificate", &["althing"]) {
        return;
    }
    let network = Network::start(4);
    let expired = &network.replicas[1];
    let path = |name: &str| expired.home().join(name);
    let next = authority(NEXT);
    std::fs::write(path("ca.crt"), &next.certificate).expect("a file");
    let mut late = holder("out of date", LOOPBACK);
    late.not_before = rcgen::date_time_ymd(2020, 1, 1);
    late.not_after = rcgen::date_time_ymd(2020, 2, 1);
    next.issue(&late).write(&path("client-server.crt"), &path("client-server.key"));
    eventually("the new certificate is taken", || expired.output().contains("tls_reloaded"));
    let client = Client::new(&expired.endpoint, Some(&expired.tls()));
    assert!(client.call_within("KV/Range", "key:'a'", Duration::from_secs(5)).is_err());
    for replica in [&network.replicas[0], &network.replicas[2], &network.replicas[3]] {
        let client = Client::new(&replica.endpoint, Some(&replica.tls()));
        client.call_within("KV/Put", "key:'a' value:'1'", MINUTE).expect("a write");
    }
    let other = &network.replicas[0];
    let status = |home: &Path, json: bool| {
        let mut command = peers::command("althing");
        command.args(["cert", "status", "--home"]).arg(home);
        if json {
            command.args(["-o", "json"]);
        }
        let output = command.output().expect("althing runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let table = status(other.home(), false);
    assert!(table.contains("DAYS LEFT") && table.contains("client-server.crt"), "{table}");
    assert!(table.contains("made by the process"), "peers are shown one, too:\n{table}");
    let json = status(other.home(), true);
    let rows: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let uses: Vec<_> =
        rows.as_array().expect("rows").iter().map(|row| row["use"].clone()).collect();
    assert_eq!(uses, ["clients", "authority", "peers"]);
}

#[test]
fn certificates_change_on_one_side_under_load_and_no_client_notices() {
    if !peers::available("process::certificates", &["althing"]) {
        return;
    }
    let network = Network::start(4);
    let changing = &network.replicas[1];
    let writers: Vec<_> = network.replicas.iter().collect();
    let load = Load::start("certificates", &writers);
    load.progress("with the first certificates", WARM_UP);

    let next_authority = authority(NEXT);
    let next_ca = &next_authority.certificate;
    let home = changing.home();
    let path = |name: &str| home.join(name);
    let next = TlsFiles {
        ca: path("next-ca.crt"),
        certificate: path("next-client.crt"),
        key: path("next-client.key"),
    };
    std::fs::write(&next.ca, next_ca).expect("a file");
    let client = holder("a client of the next authority", LOOPBACK);
    next_authority.issue(&client).write(&next.certificate, &next.key);
    let works = |tls: &TlsFiles| {
        let client = Client::new(&changing.endpoint, Some(tls));
        client.call_within("KV/Put", "key:'rotated' value:'1'", Duration::from_secs(10)).is_ok()
    };
    assert!(!works(&next), "nobody knows the next authority yet");

    // Both are trusted first; then the server shows the new certificate.
    let first_ca = std::fs::read_to_string(path("ca.crt")).expect("the first authority");
    std::fs::write(path("ca.crt"), format!("{first_ca}{next_ca}")).expect("a file");
    let server = next_authority.issue(&holder("server", LOOPBACK));
    server.write(&path("client-server.crt"), &path("client-server.key"));
    eventually("the next authority's client is served", || works(&next));
    assert!(changing.output().contains("tls_reloaded"), "{}", changing.output());
    assert!(works(&changing.tls()), "the first authority's client certificate still counts");
    load.progress("in the overlap", WARM_UP);

    // The first authority is trusted no more.
    let old =
        TlsFiles { ca: path("ca.crt"), certificate: path("client.crt"), key: path("client.key") };
    std::fs::write(path("ca.crt"), next_ca).expect("a file");
    eventually("the first authority's client is refused", || !works(&old));
    assert!(works(&next));
    // Connections that stand are not cut.
    load.progress("after the overlap", WARM_UP);
    let ledger = load.finish();
    eprintln!("certificates: {} writes, {} unknown", ledger.len(), ledger.failures);
    assert_eq!(ledger.failures, 0, "no client noticed");
    // Whoever connects now needs the next ones.
    std::fs::copy(&next.certificate, path("client.crt")).expect("a copy");
    std::fs::copy(&next.key, path("client.key")).expect("a copy");
    ledger.check(&network);
    roots_become_equal(&network);
}
