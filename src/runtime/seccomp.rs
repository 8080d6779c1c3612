//! System call filters: the default allow-list, and profiles in the OCI runtime's JSON form.

mod default;
mod profile;
mod table;

use seccompiler::{BpfProgram, SeccompFilter, TargetArch};

use crate::spec::SeccompSpec;

/// One filter: (code, jump if true, jump if false, operand) per instruction.
pub type Filter = Vec<(u16, u8, u8, u32)>;

/// The filters to install, in order, for a process with these capabilities. The error is a sentence.
pub fn filters(spec: &SeccompSpec, capabilities: u64) -> Result<Vec<Filter>, String> {
    match spec {
        SeccompSpec::Unconfined => Ok(Vec::new()),
        SeccompSpec::RuntimeDefault => default::filters(capabilities),
        SeccompSpec::Localhost(profile) => profile::filters(profile, capabilities),
    }
}

/// Whether a Localhost profile is one that we can enforce; the error is a sentence.
pub fn check(profile: &serde_json::Value) -> Result<(), String> {
    profile::filters(profile, 0).map(drop)
}

fn target() -> Result<TargetArch, String> {
    std::env::consts::ARCH.try_into().map_err(|_| "no filters for this machine's architecture".to_owned())
}

fn compile(filter: SeccompFilter) -> Result<Filter, String> {
    let program: BpfProgram = filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
    Ok(program
        .into_iter()
        .map(|instruction| (instruction.code, instruction.jt, instruction.jf, instruction.k))
        .collect())
}
