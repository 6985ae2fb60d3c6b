//! Steps as lines of a trace.

use crate::protocol_model::Protocol;
use crate::protocol_model::blocks::{BlockId, Certificate, GENESIS};
use crate::protocol_model::steps::{Act, Does};

impl Protocol {
    /// A step for a reader.
    pub(super) fn describe(&self, act: Act) -> String {
        let name = |block: BlockId| self.world.name(block);
        let view = |round: usize| {
            let shape = &self.world.rounds[round];
            if self.setup.views.len() > 1 {
                format!("view {} of epoch {}", shape.view, shape.epoch)
            } else {
                format!("view {}", shape.view)
            }
        };
        let certificate = |certificate: Certificate| match self.world.certified(certificate) {
            (_, GENESIS) => "no certificate".to_owned(),
            (round, block) => format!("the certificate of {} in {}", name(block), view(round)),
        };
        let base = |base: Certificate| format!("base {}", name(self.world.certified(base).1));
        let liar_leads = |round: usize| {
            let lies = self.setup.liar == Some(self.world.rounds[round].primary);
            if lies { ", told so by the liar" } else { "" }
        };
        let what = match act.does {
            Does::Propose(block) => format!("proposes {}", name(block)),
            Does::Accept(block) => format!("PREPAREs {}", name(block)),
            Does::AcceptSecond(block) => format!("PREPAREs {} as well", name(block)),
            Does::Commit(block) => format!("COMMITs {}", name(block)),
            Does::Ask(round, quoted) => {
                format!("sends VIEW-CHANGE for {} with {}", view(round), certificate(quoted))
            }
            Does::Lead(round, of) => format!("leads {} from {}", view(round), base(of)),
            Does::Enter(round, of) => {
                format!("enters {} from {}{}", view(round), base(of), liar_leads(round))
            }
            Does::Learn(of) => format!("learns {} of COMMITs", certificate(of)),
            Does::Follow(of) => format!("follows {} of COMMITs into its view", certificate(of)),
            Does::NextEpoch(of) => format!("begins the next epoch with {}", certificate(of)),
            Does::Sync => "has all on its disk".to_owned(),
            Does::Crash => "crashes and restarts from its disk".to_owned(),
            Does::LoseDisk => "restarts with an empty disk".to_owned(),
            Does::RestartFenced => "restarts and has forgotten its fence".to_owned(),
            Does::LeaveFence(of) => format!("leaves the fence by {} of COMMITs", certificate(of)),
        };
        format!("replica {} {what}", act.replica)
    }
}
