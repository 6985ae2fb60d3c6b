//! etcd's gRPC services.
pub mod pb;
