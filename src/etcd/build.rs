//! Compiles `etcd.proto` without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=etcd.proto");
    let descriptors = protox::compile(["etcd.proto"], ["."])?;
    tonic_prost_build::configure().build_client(false).build_server(true).bytes(".").compile_fds(descriptors)?;
    Ok(())
}
