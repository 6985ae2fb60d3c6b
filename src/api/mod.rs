//! etcd's gRPC services.
pub mod pb;
mod errors;
mod validate;
