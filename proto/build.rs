//! In: `quad/<area>/v1/*.proto`. Out: the generated types and the file descriptor set, in `OUT_DIR`. Never needs protoc.
//!
//! The server of profiles has types of its own for the answers that hold profiles: there a `Profile` is bytes already.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const IDENTITY: [&str; 1] = ["quad/identity/v1/identity.proto"];
const PROFILE: [&str; 2] = ["quad/profile/v1/admin.proto", "quad/profile/v1/profile.proto"];

/// Messages in which a `Profile` is, at any depth.
const HOLD_PROFILES: [&str; 5] = [
    "BatchGetProfilesResponse",
    "GetProfileResponse",
    "ListProfilesResponse",
    "ProfileResult",
    "WatchProfilesResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in IDENTITY.iter().chain(&PROFILE) {
        println!("cargo::rerun-if-changed={file}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let all = protox::compile(IDENTITY.iter().chain(&PROFILE), ["."])?;
    fs::write(out.join("descriptors.bin"), all.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(protox::compile(IDENTITY, ["."])?)?;
    let profile = protox::compile(PROFILE, ["."])?;
    let shared = profile.file.iter().filter(|file| file.package() == "quad.profile.v1").flat_map(|file| {
        let messages = file.message_type.iter().map(|message| message.name().to_string());
        messages.chain(file.enum_type.iter().map(|values| values.name().to_string()))
    });
    let shared: Vec<_> = shared.filter(|name| name != "Profile" && !HOLD_PROFILES.contains(&name.as_str())).collect();
    tonic_prost_build::configure().build_server(false).compile_fds(profile.clone())?;
    let servers = out.join("servers");
    fs::create_dir_all(&servers)?;
    let mut server = tonic_prost_build::configure().build_client(false).out_dir(servers);
    server = server.extern_path(".quad.profile.v1.Profile", "crate::Encoded");
    for name in shared {
        server = server.extern_path(format!(".quad.profile.v1.{name}"), format!("crate::profile::v1::{name}"));
    }
    server.compile_fds(profile)?;
    Ok(())
}
