//! The scene: what a cluster does in its first two minutes, in short form.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use conformance::kube::{ApiServer, ControlPlane, Store};
use conformance::peers::{Process, eventually};
use serde_json::{Value as Json, json};

const NAMESPACE: &str = "scene";
const EVENT_TTL_SECONDS: u32 = 20;
const OBJECTS: usize = 2_000;

/// Error lines of an apiserver on a healthy etcd, and on one whose leader dies.
pub const HEALTHY: &[&str] = &[include_str!("known_errors.txt")];
pub const LEADER_KILLED: &[&str] =
    &[include_str!("known_errors.txt"), include_str!("known_errors_leader_killed.txt")];

/// Plays everything; `disturb` is called in the middle, while writes are under way. `known` are the
/// error lines that may be logged.
pub fn play(first: &Store, second: &Store, known: &[&str], disturb: impl FnOnce()) {
    let started = Instant::now();
    let say = |what: &str| eprintln!("{:6.1} s  {what}", started.elapsed().as_secs_f32());
    let plane = ControlPlane::new(EVENT_TTL_SECONDS);
    let one = plane.start_apiserver("apiserver-one", first);
    say("first apiserver ready");
    let mut controllers = plane.start_controller_manager(&one);
    let mut scheduler = plane.start_scheduler(&one);
    one.run(&["create", "namespace", NAMESPACE]);
    simple_objects(&one);
    let event_written = short_lived_event(&one);
    say("namespace, ConfigMap, Secret, Event");
    deployment_becomes_pods(&one);
    say("Deployment, ReplicaSet, Pods");
    watch_tells_each_change(&one, plane.home());
    custom_resources(&one);
    say("watch, CRD, 100 custom resources");
    server_side_apply(&one);
    let two = plane.start_apiserver("apiserver-two", second);
    say("second apiserver ready");
    many_objects_while(&one, disturb);
    say("2,000 objects written, disturbance over");
    paginated_list(&one);
    paginated_list(&two);
    say("2,000 objects listed in pages from both");
    both_show_the_same(&one, &two);
    deletion_waits_for_finalizers(&two, &one);
    deletion_propagates(&one);
    say("finalizers, propagation");
    event_expires(&two, event_written);
    say("Event expired");
    leaders_are_alive(&one, [&mut controllers, &mut scheduler]);
    no_unknown_error(&[&one, &two], known);
    say("done");
}

fn simple_objects(server: &ApiServer) {
    server.run(&["-n", NAMESPACE, "create", "configmap", "plain", "--from-literal=a=1"]);
    server.run(&["-n", NAMESPACE, "create", "secret", "generic", "hidden", "--from-literal=p=q"]);
    let map = server.json(&["-n", NAMESPACE, "get", "configmap", "plain"]);
    assert_eq!(map["data"]["a"], "1");
    let secret = server.json(&["-n", NAMESPACE, "get", "secret", "hidden"]);
    assert_eq!(secret["data"]["p"], "cQ==");
}

/// An Event nobody renews; returns when it was written.
fn short_lived_event(server: &ApiServer) -> Instant {
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "short", "namespace": NAMESPACE},
        "involvedObject": {"kind": "ConfigMap", "name": "plain", "namespace": NAMESPACE},
        "reason": "Scene", "message": "expires by its lease", "type": "Normal",
    });
    server.apply_file(&["create"], &event.to_string());
    server.run(&["-n", NAMESPACE, "get", "event", "short"]);
    Instant::now()
}

/// The lease's time is the TTL and a twentieth; etcd's expiry is checked twice a second.
fn event_expires(server: &ApiServer, written: Instant) {
    let gone = || !server.kubectl(&["-n", NAMESPACE, "get", "event", "short"]).status.success();
    eventually("the Event expires", gone);
    let least = Duration::from_secs(u64::from(EVENT_TTL_SECONDS) - 1);
    assert!(written.elapsed() >= least, "the Event expired early, after {:?}", written.elapsed());
}

fn deployment(name: &str, replicas: u32) -> String {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "none.example/c"}],
                },
            },
        },
    })
    .to_string()
}

fn count(server: &ApiServer, kind: &str, label: &str) -> usize {
    let names = server.run(&["-n", NAMESPACE, "get", kind, "-l", label, "-o", "name"]);
    names.lines().count()
}

/// There is no node, so the Pods stay Pending and the scheduler says why.
fn deployment_becomes_pods(server: &ApiServer) {
    server.apply_file(&["create"], &deployment("web", 3));
    eventually("one ReplicaSet", || count(server, "replicaset", "app=web") == 1);
    eventually("three Pods", || count(server, "pod", "app=web") == 3);
    let judged = || {
        let pods = server.json(&["-n", NAMESPACE, "get", "pods", "-l", "app=web"]);
        let items = pods["items"].as_array().expect("items").clone();
        items.iter().all(|pod| pod["status"]["conditions"][0]["reason"] == "Unschedulable")
    };
    eventually("the scheduler judges the Pods", judged);
    server.run(&["-n", NAMESPACE, "scale", "deployment", "web", "--replicas=5"]);
    eventually("five Pods", || count(server, "pod", "app=web") == 5);
}

fn watch_tells_each_change(server: &ApiServer, home: &Path) {
    let mut command = server.kubectl_command();
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let query = "watch=1&timeoutSeconds=600&fieldSelector=metadata.name%3Dseen";
    command.args(["get", "--raw", &format!("{path}?{query}")]);
    let watch = Process::start("kubectl get --raw", command, &home.join("watch.log"));
    // It says nothing before the first event, so its start cannot be seen: write until it is.
    let told = || {
        let events: Vec<Json> =
            watch.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
        kinds.windows(3).any(|window| window == ["ADDED", "MODIFIED", "DELETED"])
    };
    let mut round = 0;
    eventually("the watch tells ADDED, MODIFIED, DELETED", || {
        round += 1;
        server.run(&["-n", NAMESPACE, "create", "configmap", "seen"]);
        let patch = format!(r#"{{"data":{{"round":"{round}"}}}}"#);
        server.run(&["-n", NAMESPACE, "patch", "configmap", "seen", "-p", &patch]);
        server.run(&["-n", NAMESPACE, "delete", "configmap", "seen"]);
        thread::sleep(Duration::from_millis(200));
        told()
    });
}

fn custom_resources(server: &ApiServer) {
    let spec = json!({"type": "object", "properties": {"chapters": {"type": "integer"}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "sagas.scene.example"},
        "spec": {
            "group": "scene.example", "scope": "Namespaced",
            "names": {"plural": "sagas", "singular": "saga", "kind": "Saga"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    });
    server.apply_file(&["create"], &definition.to_string());
    // `kubectl wait` ends with an error if it looks before there are conditions.
    eventually("the definition is established", || {
        let definition = server.json(&["get", "crd", "sagas.scene.example"]);
        let conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True")
    });
    let mut manifest = String::new();
    for number in 0..100 {
        let saga = json!({
            "apiVersion": "scene.example/v1", "kind": "Saga",
            "metadata": {"name": format!("saga-{number}"), "namespace": NAMESPACE},
            "spec": {"chapters": number},
        });
        writeln!(manifest, "---\n{saga}").expect("text");
    }
    eventually("the new kind is served", || {
        server.kubectl(&["-n", NAMESPACE, "get", "sagas"]).status.success()
    });
    server.apply_file(&["create"], &manifest);
    let sagas = server.json(&["-n", NAMESPACE, "get", "sagas", "--chunk-size=30"]);
    let sagas = sagas["items"].as_array().expect("items");
    assert_eq!(sagas.len(), 100);
    let chapters: i64 = sagas.iter().map(|s| s["spec"]["chapters"].as_i64().expect("number")).sum();
    assert_eq!(chapters, 4950);
}

fn server_side_apply(server: &ApiServer) {
    let manifest = |value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"shared": value},
            "metadata": {"name": "applied", "namespace": NAMESPACE}})
        .to_string()
    };
    let apply = |manager: &str, value: &str, force: bool| {
        let manager = format!("--field-manager={manager}");
        let force = format!("--force-conflicts={force}");
        server.with_file(&["apply", "--server-side", &manager, &force], &manifest(value))
    };
    assert!(apply("north", "1", false).status.success());
    let refused = apply("south", "2", false);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("conflict"), "no conflict: {message}");
    assert!(apply("south", "2", true).status.success());
    let args = ["-n", NAMESPACE, "get", "configmap", "applied", "--show-managed-fields"];
    let applied = server.json(&args);
    assert_eq!(applied["data"]["shared"], "2");
    let managers = applied["metadata"]["managedFields"].as_array().expect("managed fields");
    assert!(managers.iter().any(|m| m["manager"] == "south" && m["operation"] == "Apply"));
}

/// Four writers; `disturb` runs once some objects are there. kubectl does not retry a write that
/// failed, so what a writer left out is written again: nothing acknowledged may be missing.
fn many_objects_while(server: &ApiServer, disturb: impl FnOnce()) {
    server.run(&["create", "namespace", "many"]);
    let manifests: Vec<String> = (0..4)
        .map(|writer| {
            let mut text = String::new();
            for number in (writer..OBJECTS).step_by(4) {
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": format!("map-{number:04}"), "namespace": "many"},
                    "data": {"number": number.to_string(), "filler": "x".repeat(300)}});
                writeln!(text, "---\n{map}").expect("text");
            }
            text
        })
        .collect();
    let acknowledged: BTreeSet<String> = thread::scope(|scope| {
        let writers: Vec<_> = manifests
            .iter()
            .map(|text| {
                scope.spawn(move || server.with_file(&["create", "-o", "name"], text).stdout)
            })
            .collect();
        eventually("the first objects are there", || names(server).len() > 100);
        disturb();
        let outputs = writers.into_iter().map(|writer| writer.join().expect("a writer"));
        let lines: Vec<String> =
            outputs.flat_map(|out| lines_of(&String::from_utf8_lossy(&out))).collect();
        lines.into_iter().collect()
    });
    let present = names(server);
    let lost: Vec<_> = acknowledged.difference(&present).collect();
    assert!(lost.is_empty(), "acknowledged but gone: {lost:?}");
    if present.len() < OBJECTS {
        for text in &manifests {
            // Objects that exist are refused; the rest is created.
            let _refusals = server.with_file(&["create"], text);
        }
    }
    assert_eq!(names(server).len(), OBJECTS);
}

fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn names(server: &ApiServer) -> BTreeSet<String> {
    let output = server.run(&[
        "-n",
        "many",
        "get",
        "configmap",
        "-o",
        "name",
        "--field-selector=metadata.name!=kube-root-ca.crt",
    ]);
    lines_of(&output).into_iter().collect()
}

/// Pages of 300 by the API's own continue tokens: every object once, all at one revision. A token lives
/// as long as its revision; who was too slow lists anew, as the API says.
fn paginated_list(server: &ApiServer) {
    eventually("a list whose pages come before its revision is compacted", || {
        let Some((names, revisions)) = pages(server) else { return false };
        assert_eq!(names.iter().filter(|name| name.starts_with("map-")).count(), OBJECTS);
        assert_eq!(revisions.len(), 1, "pages of different revisions: {revisions:?}");
        true
    });
}

/// Names and revisions of all pages; `None` if a token expired.
fn pages(server: &ApiServer) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
    let mut seen = BTreeSet::new();
    let mut revisions = BTreeSet::new();
    let mut token = String::new();
    loop {
        let path = format!("/api/v1/namespaces/many/configmaps?limit=300&continue={token}");
        let answer = server.kubectl(&["get", "--raw", &path]);
        let error = String::from_utf8_lossy(&answer.stderr);
        if !token.is_empty() && error.contains("(Expired)") {
            return None;
        }
        assert!(answer.status.success(), "{path}: {error}");
        let page: Json = serde_json::from_slice(&answer.stdout).expect("the API answers JSON");
        revisions.insert(text(&page["metadata"]["resourceVersion"]));
        for item in page["items"].as_array().expect("items") {
            assert!(seen.insert(text(&item["metadata"]["name"])), "an object listed twice");
        }
        match page["metadata"]["continue"].as_str() {
            None | Some("") => return Some((seen, revisions)),
            Some(next) => next.clone_into(&mut token),
        }
    }
}

fn text(value: &Json) -> String {
    value.as_str().expect("a string").to_owned()
}

/// Name, uid and revision of every ConfigMap, custom resource and Deployment, from either side.
fn both_show_the_same(one: &ApiServer, two: &ApiServer) {
    let show = |server: &ApiServer| {
        server.run(&[
            "get",
            "configmaps,sagas.scene.example,deployments,secrets",
            "-A",
            "-o",
            "custom-columns=KIND:.kind,NS:.metadata.namespace,NAME:.metadata.name,\
             UID:.metadata.uid,RV:.metadata.resourceVersion",
        ])
    };
    eventually("both apiservers show the same objects", || show(one) == show(two));
    two.run(&["-n", NAMESPACE, "create", "configmap", "from-two"]);
    one.run(&["-n", NAMESPACE, "get", "configmap", "from-two"]);
}

fn deletion_waits_for_finalizers(writer: &ApiServer, reader: &ApiServer) {
    let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "held", "namespace": NAMESPACE, "finalizers": ["scene.example/hold"]}});
    writer.apply_file(&["create"], &manifest.to_string());
    writer.run(&["-n", NAMESPACE, "delete", "configmap", "held", "--wait=false"]);
    let held = reader.json(&["-n", NAMESPACE, "get", "configmap", "held"]);
    assert!(held["metadata"]["deletionTimestamp"].is_string(), "not being deleted: {held}");
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    writer.run(&["-n", NAMESPACE, "patch", "configmap", "held", "-p", patch]);
    let gone = || !reader.kubectl(&["-n", NAMESPACE, "get", "configmap", "held"]).status.success();
    eventually("the object goes with its finalizer", gone);
}

fn deletion_propagates(server: &ApiServer) {
    let delete = |name: &str, how: &str| {
        server.run(&["-n", NAMESPACE, "delete", "deployment", name, &format!("--cascade={how}")]);
    };
    delete("web", "foreground");
    assert_eq!(count(server, "replicaset", "app=web"), 0);
    assert_eq!(count(server, "pod", "app=web"), 0);
    server.apply_file(&["create"], &deployment("kept", 1));
    eventually("a Pod", || count(server, "pod", "app=kept") == 1);
    delete("kept", "orphan");
    assert_eq!(count(server, "replicaset", "app=kept"), 1);
    server.run(&[
        "-n",
        NAMESPACE,
        "delete",
        "replicaset",
        "-l",
        "app=kept",
        "--cascade=background",
    ]);
    eventually("its Pod goes too", || count(server, "pod", "app=kept") == 0);
}

/// Both would exit had they lost their Lease ("leaderelection lost").
fn leaders_are_alive(server: &ApiServer, processes: [&mut Process; 2]) {
    for process in processes {
        assert!(process.exited().is_none(), "ended:\n{}", process.last_output());
    }
    for name in ["kube-controller-manager", "kube-scheduler"] {
        let lease = server.json(&["-n", "kube-system", "get", "lease", name]);
        assert!(lease["spec"]["holderIdentity"].is_string(), "nobody leads {name}: {lease}");
        assert_eq!(lease["spec"]["leaseTransitions"], 0, "{name} lost its Lease");
    }
}

/// What an apiserver logs as an error here, it must log on a real etcd, too.
fn no_unknown_error(servers: &[&ApiServer], known: &[&str]) {
    let lines = known.iter().flat_map(|list| list.lines());
    let known: Vec<&str> = lines.filter(|line| !line.starts_with('#')).collect();
    let mut unknown = BTreeSet::new();
    for server in servers {
        let lines = server.error_lines();
        unknown.extend(lines.into_iter().filter(|line| !known.iter().any(|k| line.starts_with(k))));
    }
    let list: Vec<String> = unknown.into_iter().collect();
    assert!(list.is_empty(), "error lines that a real etcd does not cause:\n{}", list.join("\n"));
}
