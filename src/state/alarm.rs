use std::collections::BTreeSet;

use crate::chain::AlarmKind;
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// The alarms in force. Member 0 stands for the network: the quota is everyone's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    raised: BTreeSet<(u64, AlarmKind)>,
}

/// Most alarms in force: a member per kind, and names of members are free to choose.
const ALARMS_MAX: usize = 1024;

impl Alarms {
    /// All of them, by member and kind.
    pub fn list(&self) -> impl Iterator<Item = (u64, AlarmKind)> {
        self.raised.iter().copied()
    }

    /// Whether anyone raised this kind.
    #[must_use]
    pub fn is_raised(&self, kind: AlarmKind) -> bool {
        self.raised.iter().any(|(_, raised)| *raised == kind)
    }

    /// Raises one; false if it cannot be: "any" is no alarm, and the list is bounded.
    pub(crate) fn raise(&mut self, member: u64, kind: AlarmKind) -> bool {
        let room = self.raised.len() < ALARMS_MAX || self.raised.contains(&(member, kind));
        if kind == AlarmKind::Any || !room {
            return false;
        }
        self.raised.insert((member, kind));
        true
    }

    /// Takes back a member's alarm, and the network's of that kind: whoever holds it for its own knows no
    /// other id.
    pub(crate) fn clear(&mut self, member: u64, kind: AlarmKind) -> Vec<(u64, AlarmKind)> {
        let matches = |(of, raised): &(u64, AlarmKind)| [0, member].contains(of) && *raised == kind;
        let cleared: Vec<_> = self.raised.iter().copied().filter(matches).collect();
        self.raised.retain(|alarm| !matches(alarm));
        cleared
    }
}

impl Encode for Alarms {
    fn encode(&self, writer: &mut Writer) {
        writer.length(self.raised.len());
        for (member, kind) in &self.raised {
            writer.u64(*member);
            writer.u8(*kind as u8);
        }
    }
}

impl Decode for Alarms {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut raised = BTreeSet::new();
        for _ in 0..reader.length(ALARMS_MAX, "alarms")? {
            let member = reader.u64("alarm member")?;
            let kind = match reader.u8("alarm kind")? {
                1 => AlarmKind::NoSpace,
                2 => AlarmKind::Corrupt,
                _ => return Err(DecodeError::Invalid("alarm kind")),
            };
            if raised.last().is_some_and(|last| *last >= (member, kind)) {
                return Err(DecodeError::Invalid("alarm order"));
            }
            raised.insert((member, kind));
        }
        Ok(Self { raised })
    }
}
