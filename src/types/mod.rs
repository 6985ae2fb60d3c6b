//! The words everything else is written in: small checked values, no behaviour beyond arithmetic.

mod ids;
mod quorum;

pub use ids::{
    ClusterId, Digest, Epoch, Height, LeaseId, LogPosition, Millis, OrgId, ReplicaId, Revision,
    View,
};
pub use quorum::Quorum;
