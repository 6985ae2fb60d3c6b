//! Prints where a protobuf compiler and its own messages are: etcd-client is built with one.

fn main() {
    let compiler = protoc_bin_vendored::protoc_bin_path().expect("a compiler for this machine");
    let messages = protoc_bin_vendored::include_path().expect("its messages");
    println!("{}\n{}", compiler.display(), messages.display());
}
