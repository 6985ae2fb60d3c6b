//! A change of members or parameters. Whether it is made was decided by the voters that accepted its
//! block, and shows in the header's CONFIG flag; the network decides again here (protocol.md 20.3).

use crate::apply::{Done, OpError, Reply, Step};
use crate::chain::{ConfigChange, ConfigError, flags};
use crate::types::ReplicaId;

impl Step<'_> {
    pub(super) fn config(&mut self, change: &ConfigChange) -> Done<Reply> {
        let next = self.state.network().change(change, self.header).map_err(OpError::from)?;
        if self.header.flags & flags::CONFIG == 0 {
            return Err(OpError::from(ConfigError::ReplicaSignature).into());
        }
        let known = self.state.network();
        let ids = next.addresses.keys().chain(next.reserved.keys()).copied();
        let new =
            |id: &ReplicaId| !known.addresses.contains_key(id) && !known.reserved.contains_key(id);
        let added = ids.into_iter().find(new);
        let epoch = next.membership.epoch;
        self.state.start_epoch(next);
        Ok(Reply::Config { revision: self.revision(), epoch, added })
    }
}
