//! Where Althing differs from etcd on purpose: the table behind `docs/compatibility.md`. Whoever leaves
//! something out of a comparison names its row.

/// One row.
pub struct Difference {
    /// What differs.
    pub topic: &'static str,
    /// What etcd does.
    pub etcd: &'static str,
    /// What Althing does.
    pub althing: &'static str,
    /// Why that is right.
    pub why: &'static str,
}

const fn row(
    topic: &'static str,
    etcd: &'static str,
    althing: &'static str,
    why: &'static str,
) -> Difference {
    Difference { topic, etcd, althing, why }
}

/// Every difference that is known and meant.
pub const DIFFERENCES: &[Difference] = &[
    row(
        "longest key",
        "none of its own",
        "1,024 bytes; longer: InvalidArgument \"etcdserver: request is too large\"",
        "bounds the depth of the state's trie (`state` 0.1)",
    ),
    row(
        "nested transactions",
        "gRPC's recursion limit",
        "8 deep",
        "every replica checks them before a vote",
    ),
    row(
        "lease expiry",
        "the leader's timer",
        "block time on a replicated lease clock that gains at most 2 s per block",
        "a minute without quorum, or a jumping clock, expires nothing",
    ),
    row(
        "LeaseTimeToLive",
        "wall clock",
        "the lease clock as of the last block",
        "same on every replica",
    ),
    row(
        "NOSPACE",
        "the op that crosses the quota is applied, then the alarm is raised",
        "the op is refused and the alarm raised, for the network (member 0)",
        "decided in apply, equal on all replicas",
    ),
    row(
        "Range order by another target with equal values",
        "Go's unstable sort",
        "ties by key",
        "replicas must agree",
    ),
    row(
        "MoveLeader",
        "to any voting member",
        "to the next primary in turn; to another: \"bad leader transferee\"",
        "views pass the lead on in a fixed order, so that no primary chooses its successor",
    ),
    row(
        "`raft_term`, `raftIndex`",
        "Raft's",
        "epoch << 32 | view + 1, committed height",
        "clients only compare them",
    ),
    row(
        "`dbSize`",
        "file size",
        "logical bytes, what the quota counts",
        "there is nothing to defragment",
    ),
    row(
        "Hash, HashKV: the number",
        "crc32c over the pages of its file",
        "32 bits of a keyed blake3 digest: HashKV over all keys and values as they are at the \
         revision, whatever is compacted, Hash over the state's roots of keys, leases, alarms, \
         members and users",
        "equal on all replicas with the same content, before and after a checkpoint, a restart \
         or state transfer; there is no bbolt file",
    ),
    row(
        "HashKV at the compacted revision: `compact_revision`",
        "the one before, once the compaction has ended",
        "the present one",
        "the same at any moment and on every replica",
    ),
    row(
        "HashKV at the revision of an earlier compaction",
        "the number it kept from then, of its last ten; after a compaction at 0 also where no revision is named",
        "\"required revision has been compacted\", as at any revision below; the number now",
        "nothing is kept of what is compacted",
    ),
    row(
        "Status: `storageVersion` in the first seconds",
        "3.5.0, until its monitor has raised it",
        "3.7.0",
        "there is nothing to raise",
    ),
    row(
        "Downgrade",
        "validates and enables 3.6",
        "VALIDATE and ENABLE: \"invalid downgrade target version\" for every well-formed target; CANCEL as in etcd",
        "there is no older release whose files could be written",
    ),
    row(
        "Lock, Election whose caller cancels",
        "the key that waits is deleted without a user: with users it stays until its lease ends",
        "deleted in the caller's name",
        "nobody waits for a caller that is gone",
    ),
    row(
        "a watcher whose user loses the right, or that had no user when users were switched on",
        "goes on",
        "cancelled; the reason is etcd's refusal of a new watch",
        "nothing is shown that is not allowed any more",
    ),
    row(
        "REST: texts about malformed JSON",
        "Go's",
        "the two most common are Go's (\"unexpected EOF\", \"invalid character ... looking for \
         beginning of value\"), others our own; status and code are equal",
        "the library",
    ),
    row(
        "REST: a stream whose first line is no JSON",
        "no answer",
        "400",
        "who is told nothing waits for ever",
    ),
    row("REST: a field given twice", "400", "the last one counts", "the library"),
    row(
        "REST: websockets",
        "there",
        "plain HTTP alone",
        "a client that wants them speaks gRPC as well",
    ),
    row(
        "REST in `grpc_server_*` metrics",
        "counted as gRPC",
        "not counted",
        "there is no connection behind it",
    ),
    row(
        "users and roles",
        "one list",
        "one per organisation; a network of one owner has one",
        "[ADR 4](adr/0004-users-belong-to-organisations.md)",
    ),
    row(
        "names of users and roles, all of them together",
        "unbounded",
        "256 bytes; 256 KiB an organisation, beyond: \"database space exceeded\"",
        "every replica decides by them",
    ),
    row(
        "wrong passwords",
        "each is compared at once",
        "ten in a row for a user from one address are free, a hundred for all users of another machine; then each \
         login waits 50 ms to 1.6 s behind the one before, more than 64 get \"too many requests\"; the right one \
         ends it",
        "who guesses learns little and costs nobody else anything",
    ),
    row(
        "answers that their clients do not take",
        "kept, however many",
        "512 MiB in all; beyond, reads answer ResourceExhausted",
        "a client that asks and does not read must not end the process",
    ),
    row(
        "pings more often than `--grpc-keepalive-min-time`",
        "the connection ends with \"too_many_pings\"",
        "each is answered, one at a time",
        "the library shows no ping to its user; it keeps one answer, whatever comes in",
    ),
    row(
        "simple tokens",
        "16 letters and the raft index",
        "22 letters and the block's height; the log holds a digest of the letters",
        "who reads a log gets no token",
    ),
    row(
        "reads of users and roles (`UserGet`, ..., `AuthStatus`)",
        "ordered by raft",
        "a linearizable read",
        "same answers, nothing in the log",
    ),
    row(
        "a user asks for a range whose end lies before its start",
        "allowed or denied by the shape of a tree",
        "decided by its first key",
        "it names no key, and replicas must agree",
    ),
    row(
        "JWT",
        "needs the private key alone; ES512",
        "needs `pub-key` too, but for HMAC; no ES512",
        "the library",
    ),
    row("Authenticate with JWT", "ordered by raft", "not ordered", "the token proves itself"),
    row(
        "RangeStream while users or roles change",
        "refused at its end",
        "refused at the next chunk",
        "nothing is shown that is not allowed any more",
    ),
    row(
        "`ignore_value`, `ignore_lease` for a key that the same transaction has deleted",
        "every member ends in a panic, again at each start (a delete from a key on escapes the check for duplicates)",
        "that put writes nothing",
        "no request ends a replica",
    ),
    row(
        "a field of another wire type than its own",
        "Go's library reads past it",
        "the request is refused: Internal",
        "a replica does not guess what was meant",
    ),
    row(
        "text of an error about a message that is none",
        "Go's gRPC's",
        "tonic's; the code is the same",
        "the library",
    ),
    row("keys of `LeaseTimeToLive`", "in the order of a Go map", "sorted", "same on every replica"),
    row(
        "a watch cut off by a compaction",
        "keeps its id, and the whole stream from progress, until the client cancels it too",
        "is gone; the other watches get progress",
        "the client was told that it is over",
    ),
    row(
        "`--initial-cluster` with several members",
        "forms a cluster",
        "forms a network; who was told other members, another token or other voted flags is refused by name",
        "one genesis follows from what all say ([protocol](protocol.md) 22)",
    ),
    row(
        "a member that was added and has not started",
        "counts in the quorum",
        "counts in none; once started it follows, and votes when it has caught up",
        "a member that never comes stops nothing",
    ),
    row(
        "MemberPromote of a learner that is away",
        "done, if it had caught up",
        "refused as one that is not in sync",
        "a voter that is away counts in the quorum",
    ),
    row(
        "MemberUpdate with peer URLs that are none",
        "done",
        "refused as MemberAdd refuses them",
        "nobody would find that member",
    ),
    row(
        "members of a network of organisations (`ownership: many`)",
        "–",
        "MemberList is true, the rest answers PermissionDenied and names the command",
        "no single client changes them",
    ),
    row(
        "`--peer-*` TLS flags",
        "for all that members say to each other",
        "where members find each other at https peer URLs, and when one is let in; links are TLS \
         1.3 between pinned keys at http URLs too",
        "keys are pinned by the genesis: no certificate's end stops ordering",
    ),
    row(
        "wildcards in the certificate of a member that looks for others",
        "compared with a reverse look-up of its address",
        "not compared: its other names and addresses count, or `--peer-skip-client-san-verification`",
        "the library has no reverse look-up",
    ),
    row(
        "`--peer-client-cert-auth` without `--peer-trusted-ca-file`",
        "the system's authorities count",
        "the start ends with a message",
        "a public authority knows no member",
    ),
    row("peer URLs `unix://`", "there", "the start ends with a message", "replicas meet by TCP"),
    row(
        "`--cipher-suites`",
        "any that Go knows",
        "those with forward secrecy and authenticated encryption; others are left out with a \
         warning, none left is an error",
        "the library has no others",
    ),
    row(
        "`--client-crl-file`",
        "one list in DER, read at each handshake; while it cannot be read nobody is let in",
        "DER, or any number in PEM; one that cannot be read leaves the last in force",
        "an operator's slip must not cut off every client",
    ),
    row(
        "TLS files",
        "read at each handshake; a broken certificate ends every handshake, the CA is read at start alone",
        "certificate, key, CA and CRL looked at every 5 s; broken ones leave the last in force and are logged once",
        "same reason",
    ),
    row(
        "`--unsafe-no-fsync` where others are known at the start",
        "there",
        "no effect, with a warning",
        "the others count on what a replica acknowledges",
    ),
    row(
        "`--force-new-cluster` with several members",
        "there",
        "the start ends with a message",
        "a network is not taken from its members by one of them",
    ),
    row("`--quota-backend-bytes` below 0", "no quota", "1 PiB", "every network has one"),
    row(
        "`--election-timeout` above 8,000 or below 100, `--max-request-bytes` above 4 MiB, `--max-txn-ops` above 4,096",
        "taken, the second with a warning above 10 MiB",
        "the nearest that a network may have, with a warning",
        "replicas must agree; a slower change of view is longer than Kubernetes waits, and a request must fit a block",
    ),
    row(
        "`--log-rotation-config-json`",
        "`maxage` and `maxbackups` together; names `NAME-TIME.EXT`",
        "`maxage` alone where both are given; names `NAME.EXT.TIME`",
        "the library",
    ),
];

/// The row about `topic`; panics where there is none.
pub fn known(topic: &str) -> &'static Difference {
    let row = DIFFERENCES.iter().find(|row| row.topic == topic);
    row.unwrap_or_else(|| panic!("no row about {topic:?} in conformance/src/differences.rs"))
}

/// The section of the page.
pub fn section() -> String {
    let mut text = String::from(
        "## Differences\nFrom `conformance/src/differences.rs`.\n\n| topic | etcd | Althing | why |\n\
         | --- | --- | --- | --- |\n",
    );
    for row in DIFFERENCES {
        let cells = [row.topic, row.etcd, row.althing, row.why];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}
