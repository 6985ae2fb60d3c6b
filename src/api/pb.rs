//! The generated protobuf code of `proto/etcd`. Only [`crate::api`] and the client half of
//! [`crate::cli`] know it.
#![allow(missing_docs, reason = "generated from proto/etcd, which documents nothing")]
#![allow(clippy::all, clippy::too_many_lines, clippy::unwrap_used, reason = "generated code")]
#![allow(rustdoc::all, reason = "generated code")]

/// Keys, their versions and the events of a change.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Users, roles and permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// The services of an etcd server and their messages.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Locks.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// Elections.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
