//! Voted flags in a network of one owner: what a member is started with becomes the network's, as a
//! larger `--quota-backend-bytes` does in etcd. Whoever was started last decides.

use std::time::Duration;

use crate::chain::{ConfigAction, Ownership};
use crate::config::{Settings, voted, voted_differences};
use crate::node::Handle;

const PAUSE: Duration = Duration::from_millis(500);

/// Returns once the network's parameters are those that this member's flags ask for, or cannot be.
pub(super) async fn apply(settings: &Settings, handle: &Handle) {
    loop {
        let network = handle.network();
        let in_force = &network.membership.parameters;
        let flags = voted_differences(settings, in_force);
        if network.ownership != Ownership::One || flags.is_empty() {
            return;
        }
        let flags = flags.join(", ");
        if !network.membership.member(handle.own()).is_some_and(|member| member.voting) {
            tracing::warn!(event = "voted_flags", flags, "no effect: this member does not vote");
            return;
        }
        let wanted = ConfigAction::Parameters(voted(settings, in_force));
        match handle.change_owned(handle.own_author("voted flags"), wanted).await {
            Ok(_) => tracing::info!(event = "voted_flags", flags, "the network's from now on"),
            Err(error) => {
                tracing::info!(event = "voted_flags", flags, %error, "not yet the network's");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
