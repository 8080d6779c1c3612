//! What is served: the flag of `src/apiserver/config/runtime.rs`.

use super::Flag;
use super::Set::List;
use crate::config::RuntimeConfig;

pub(super) const FLAGS: &[Flag] = &[(
    "runtime-config",
    List(|config, parts| {
        config.runtime_config = RuntimeConfig::parse(&parts)?;
        Ok(())
    }),
)];
