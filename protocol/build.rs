//! Compiles the service definitions without protoc: a pure Rust compiler makes the descriptors.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(feature = "rpc")]
    rpc::compile()?;
    Ok(())
}

#[cfg(feature = "rpc")]
mod rpc {
    use std::path::PathBuf;

    const FILES: [&str; 7] = ["common", "raft", "metadata", "lifecycle", "replication", "data", "admin"];

    pub(crate) fn compile() -> Result<(), Box<dyn std::error::Error>> {
        let paths: Vec<String> = FILES.iter().map(|f| format!("proto/{f}.proto")).collect();
        for path in &paths {
            println!("cargo:rerun-if-changed={path}");
        }
        let descriptors = protox::compile(&paths, ["proto"])?;
        let out = PathBuf::from(std::env::var("OUT_DIR")?);
        std::fs::write(out.join("descriptors.bin"), protox_encode(&descriptors))?;
        // `bytes` fields become bytes::Bytes: no copy out of the receive buffer.
        tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
        Ok(())
    }

    fn protox_encode(descriptors: &prost_types::FileDescriptorSet) -> Vec<u8> {
        prost::Message::encode_to_vec(descriptors)
    }
}
