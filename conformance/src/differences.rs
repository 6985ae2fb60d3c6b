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
        "peer TLS while members find each other",
        "as the URLs say",
        "plain, then TLS 1.3 between pinned keys",
        "keys are pinned by the genesis, not by a CA",
    ),
    row("unix sockets", "there", "the start ends with a message", "not there yet"),
];

/// The row about `topic`; panics where there is none.
pub fn known(topic: &str) -> &'static Difference {
    let row = DIFFERENCES.iter().find(|row| row.topic == topic);
    row.unwrap_or_else(|| panic!("no row about {topic:?} in conformance/src/differences.rs"))
}

/// The section of the page.
pub fn section() -> String {
    let mut text = String::from(
        "## Differences\nFrom `conformance/src/differences.rs`; `ALTHING_RECORD=1 cargo test -p conformance \
         --test api every_difference` writes it anew.\n\n| topic | etcd | Althing | why |\n\
         | --- | --- | --- | --- |\n",
    );
    for row in DIFFERENCES {
        let cells = [row.topic, row.etcd, row.althing, row.why];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}
