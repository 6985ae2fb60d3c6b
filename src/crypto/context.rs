/// What a hash is over: a name, padded with zeros to blake3's key length.
pub struct Context([u8; 32]);

impl Context {
    /// A block's header.
    pub const BLOCK_HEADER: Self = Self::named("althing v1 block-header");
    /// The entries of a block, and the inner nodes over them.
    pub const BODY: Self = Self::named("althing v1 body");
    /// A bundle without its values.
    pub const BUNDLE: Self = Self::named("althing v1 bundle");
    /// The ops of a bundle.
    pub const BUNDLE_BODY: Self = Self::named("althing v1 bundle-body");
    /// A REJOIN entry.
    pub const REJOIN: Self = Self::named("althing v1 rejoin");
    /// A value with its salt: the commitment.
    pub const VALUE: Self = Self::named("althing v1 value");
    /// A vote's body.
    pub const VOTE: Self = Self::named("althing v1 vote");
    /// A VIEW-CHANGE's body.
    pub const VIEW_CHANGE: Self = Self::named("althing v1 view-change");
    /// A NEW-VIEW's body.
    pub const NEW_VIEW: Self = Self::named("althing v1 new-view");
    /// A CHECKPOINT's body.
    pub const CHECKPOINT: Self = Self::named("althing v1 checkpoint");
    /// An answer to R3's question.
    pub const VOTES_ANSWER: Self = Self::named("althing v1 votes-answer");
    /// A STATUS.
    pub const STATUS: Self = Self::named("althing v1 status");
    /// The genesis; its hash is the cluster id.
    pub const GENESIS: Self = Self::named("althing v1 genesis");
    /// The file that a network's first state is read from, and the salts of its values.
    pub const INITIAL_STATE: Self = Self::named("althing v1 initial-state");
    /// What the members of a network of one owner were told before there was a network.
    pub const INITIAL_CLUSTER: Self = Self::named("althing v1 initial-cluster");
    /// What such a member says of itself.
    pub const HELLO: Self = Self::named("althing v1 hello");
    /// A peer's TLS key with its holder and expiry.
    pub const TLS_KEY: Self = Self::named("althing v1 tls-key");
    /// Members and parameters in force.
    pub const CONFIG: Self = Self::named("althing v1 config");
    /// Members, parameters and where they are found: a sub-state.
    pub const NETWORK: Self = Self::named("althing v1 network");
    /// A change of members or parameters.
    pub const CONFIG_CHANGE: Self = Self::named("althing v1 config-change");
    /// A new replica key, signed by itself.
    pub const POSSESSION: Self = Self::named("althing v1 possession");
    /// A learner's word for its state.
    pub const ATTESTATION: Self = Self::named("althing v1 attestation");
    /// A leaf of a state trie.
    pub const STATE_LEAF: Self = Self::named("althing v1 state-leaf");
    /// A pair inside a page of a state trie.
    pub const STATE_PAGE: Self = Self::named("althing v1 state-page");
    /// An inner node of a state trie.
    pub const STATE_NODE: Self = Self::named("althing v1 state-node");
    /// The root of one state trie, or of a sub-state that is hashed whole.
    pub const STATE_ROOT: Self = Self::named("althing v1 state-root");
    /// The root over all sub-states.
    pub const EXEC_ROOT: Self = Self::named("althing v1 exec-root");
    /// The running digest over all effects.
    pub const EFFECTS: Self = Self::named("althing v1 effects");
    /// A record of the log and its chain.
    pub const LOG_RECORD: Self = Self::named("althing v1 log-record");
    /// A chunk of a checkpoint.
    pub const CHUNK: Self = Self::named("althing v1 chunk");
    /// A checkpoint's manifest.
    pub const MANIFEST: Self = Self::named("althing v1 manifest");
    /// What clients can see of a store: Hash and HashKV.
    pub const CONTENT: Self = Self::named("althing v1 content");
    /// A simple token's secret part.
    pub const TOKEN: Self = Self::named("althing v1 token");
    /// A proof of misbehaviour: its name.
    pub const EVIDENCE: Self = Self::named("althing v1 evidence");
    /// An entry of the index.
    pub const INDEX: Self = Self::named("althing v1 index");

    const fn named(name: &str) -> Self {
        let bytes = name.as_bytes();
        assert!(bytes.len() <= 32, "a context name fits into a key");
        let mut key = [0; 32];
        let mut at = 0;
        while at < bytes.len() {
            key[at] = bytes[at];
            at += 1;
        }
        Self(key)
    }

    pub(super) fn key(&self) -> &[u8; 32] {
        &self.0
    }
}
