//! etcd's Hash and HashKV: numbers that are equal on members with the same content. The numbers are our
//! own, for etcd's are over the pages of its file.

use tonic::Status;

use crate::api::Api;
use crate::api::errors::Refusal;
use crate::api::pb::etcdserverpb as pb;
use crate::chain::ValueError;
use crate::node::Shared;
use crate::state::ContentHash;
use crate::types::Revision;

/// Tries to read a page whose values move while it is read.
const PAGE_TRIES: usize = 3;

impl Api {
    /// What clients can see now, in one number.
    pub(super) fn hash(&self) -> pb::HashResponse {
        let (revision, hash) =
            self.handle.read(|shared| (shared.state.kv.revision(), shared.state.content()));
        pb::HashResponse { header: Some(self.header(revision)), hash }
    }

    /// All keys and values of `revision`, in one number. Made page by page: no block waits for it, and one
    /// is made at a time.
    ///
    /// # Errors
    /// The revision is compacted or to come.
    pub(super) async fn hash_kv(&self, revision: Revision) -> Result<pb::HashKvResponse, Status> {
        let _turn = self.hashing.acquire().await.map_err(|_| Refusal::Stopped)?;
        let begin = |shared: &Shared| ContentHash::begin(&shared.state.kv, revision);
        let mut content = self.handle.read(begin).map_err(Refusal::from)?;
        while self.hash_page(&mut content)? {
            // Others of this thread's clients have their turn.
            tokio::task::yield_now().await;
        }
        Ok(pb::HashKvResponse {
            header: Some(self.header_now()),
            hash: content.finish(),
            compact_revision: content.compact_revision().0,
            hash_revision: content.revision().0,
        })
    }

    /// One page; false when there is none.
    fn hash_page(&self, content: &mut ContentHash) -> Result<bool, Refusal> {
        let mut tries = 0;
        loop {
            tries += 1;
            let page = self.handle.read(|shared| content.page(&shared.state.kv))?;
            let Some(page) = page else { return Ok(false) };
            match content.add(page, self.handle.values().as_ref()) {
                Ok(()) => return Ok(true),
                Err(ValueError::Erased(_) | ValueError::Rotten(_)) if tries < PAGE_TRIES => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
    }

    /// A value cannot be read: unless it was erased, nothing of this replica's state is to be trusted
    /// now (protocol.md 19.2).
    pub(super) fn unreadable(&self, error: ValueError) -> Refusal {
        if let ValueError::Rotten(_) | ValueError::Disk(_) = error {
            self.handle.report_damage(error.to_string());
        }
        error.into()
    }
}
