//! Protobuf code from `proto/etcd`, in pure Rust: nobody installs protoc.

fn main() {}
