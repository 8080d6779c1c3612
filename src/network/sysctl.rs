//! Kernel settings under `/proc/sys/net`, of the calling thread's network namespace.

use std::path::Path;

use crate::Error;

const ROOT: &str = "/proc/sys/net";

/// Sets `name` (with slashes) unless it has that value already. A setting that this kernel does not have is no error.
pub(crate) fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new(ROOT).join(name);
    match std::fs::read_to_string(&path) {
        Ok(current) if current.trim() == value => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => std::fs::write(&path, value).map_err(|source| Error::Sysctl { path, source }),
    }
}
