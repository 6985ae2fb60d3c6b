//! Protobuf code from `proto/etcd`, in pure Rust: nobody installs protoc.
//!
//! Only the feature `server` needs it, and only then are the build dependencies there.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto/etcd");
    #[cfg(feature = "server")]
    if let Err(error) = protobuf::generate() {
        println!("cargo::error=proto/etcd cannot be compiled: {error}");
    }
}

#[cfg(feature = "server")]
mod protobuf {
    use prost::Message;
    use prost_types::FileDescriptorSet;
    use prost_types::field_descriptor_proto::Type;

    const FILES: [&str; 5] =
        ["rpc.proto", "kv.proto", "auth.proto", "v3lock.proto", "v3election.proto"];

    #[expect(
        clippy::disallowed_methods,
        reason = "the compiler says by OUT_DIR where code is built"
    )]
    pub fn generate() -> Result<(), Box<dyn std::error::Error>> {
        let mut files = protox::compile(FILES, ["proto/etcd"])?;
        // For the REST gateway, which makes JSON by it: here events are events.
        let out = std::env::var("OUT_DIR")?;
        std::fs::write(format!("{out}/etcd.bin"), files.encode_to_vec())?;
        keep_events_encoded(&mut files);
        tonic_prost_build::configure()
            .bytes(".")
            .generate_default_stubs(true)
            .build_server(true)
            .build_client(true)
            .compile_fds(files)?;
        Ok(())
    }

    /// An event is encoded once and sent to every watcher: on the wire a repeated message and a
    /// repeated byte string are the same, so the server holds `WatchResponse.events` as bytes.
    fn keep_events_encoded(files: &mut FileDescriptorSet) {
        let messages = files.file.iter_mut().flat_map(|file| file.message_type.iter_mut());
        let fields = messages
            .filter(|message| message.name() == "WatchResponse")
            .flat_map(|message| message.field.iter_mut());
        for field in fields.filter(|field| field.name() == "events") {
            field.set_type(Type::Bytes);
            field.type_name = None;
        }
    }
}
