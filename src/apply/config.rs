//! A change of members or parameters. Whether it is made was decided by the voters that accepted its
//! block, and shows in the header's CONFIG flag; the network decides again here (protocol.md 20.3).

use crate::apply::{Done, OpError, Reply, Step};
use crate::chain::{ConfigChange, ConfigError, flags};

impl Step<'_> {
    pub(super) fn config(&mut self, change: &ConfigChange) -> Done<Reply> {
        let next = self.state.network().change(change, self.header).map_err(OpError::from)?;
        if self.header.flags & flags::CONFIG == 0 {
            return Err(OpError::from(ConfigError::ReplicaSignature).into());
        }
        let known = &self.state.network().addresses;
        let added = next.addresses.keys().copied().find(|id| !known.contains_key(id));
        let epoch = next.membership.epoch;
        self.state.start_epoch(next);
        Ok(Reply::Config { revision: self.revision(), epoch, added })
    }
}
