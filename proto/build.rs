//! Compiles the protos (no protoc needed), and lists every RPC with the permission it declares.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use prost::Message as _;
use tonic_prost_build::FileDescriptorSet;

const FILES: [&str; 15] = [
    "croft/v1/annotations.proto",
    "croft/v1/common.proto",
    "croft/v1/operations.proto",
    "croft/v1/tenants.proto",
    "croft/v1/quotas.proto",
    "croft/v1/tokens.proto",
    "croft/v1/images.proto",
    "croft/v1/networks.proto",
    "croft/v1/events.proto",
    "croft/v1/devices.proto",
    "croft/v1/pools.proto",
    "croft/v1/hosts.proto",
    "croft/v1/clusters.proto",
    "croft/v1/instances.proto",
    "croft/agent/v1/agent.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = env::var("OUT_DIR")?;
    println!("cargo::rerun-if-changed=croft");

    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    for file in FILES {
        compiler.open_file(file)?;
    }
    // With the extensions kept: reflection clients and the CLI read it.
    fs::write(Path::new(&out).join("croft.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(Path::new(&out).join("permissions.rs"), permissions(&compiler.descriptor_pool())?)?;

    let set = FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice())?;
    // Sorted maps: the same message always has the same bytes, which a retry's digest relies on.
    // A kubeconfig must not come into a log by way of a message that holds it: src/redacted.rs says less.
    tonic_prost_build::configure().btree_map(".").skip_debug([".croft.v1.Cluster"]).compile_fds(set)?;
    Ok(())
}

/// `PERMISSIONS`: one row per RPC. A method that declares none fails the build.
fn permissions(pool: &prost_reflect::DescriptorPool) -> Result<String, String> {
    let extension = pool.get_extension_by_name("croft.v1.permission").ok_or("annotations.proto lost its extension")?;
    let mut rows = Vec::new();
    for service in pool.services() {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let options = method.options();
            let declared = options.get_extension(&extension);
            match declared.as_str() {
                Some(permission) if !permission.is_empty() => rows.push((path, permission.to_owned())),
                _ => return Err(format!("{path} declares no permission")),
            }
        }
    }
    rows.sort();
    let mut text =
        String::from("/// (gRPC path, permission), sorted by path.\npub const PERMISSIONS: &[(&str, &str)] = &[\n");
    for (path, permission) in rows {
        writeln!(text, "    ({path:?}, {permission:?}),").map_err(|e| e.to_string())?;
    }
    text.push_str("];\n");
    Ok(text)
}
