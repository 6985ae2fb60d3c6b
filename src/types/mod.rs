//! The words everything else is written in: small checked values, no behaviour beyond arithmetic.

mod bucket;
mod ids;
mod quorum;

pub use bucket::Bucket;
pub use ids::{
    ClusterId, Digest, Epoch, Height, LeaseId, LogPosition, Millis, OrgId, ReplicaId, Revision,
    View,
};
pub use quorum::Quorum;
