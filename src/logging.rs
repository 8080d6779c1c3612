//! Where the log goes.

use std::path::Path;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Writes the log to standard error, or to a file. `RUST_LOG` says more finely what is logged.
pub fn start(debug: bool, file: Option<&Path>) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) => EnvFilter::try_new(directives).context("RUST_LOG is malformed")?,
        // The dependencies' own chatter is for those who debug them.
        Err(_) if debug => EnvFilter::new(
            "debug,h2=info,hyper=info,rustls=info,sled=info,openraft=warn,tower=info,tonic=info,hickory=info",
        ),
        Err(_) => EnvFilter::new("info,openraft=warn,sled=warn,hickory=warn"),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_target(false);
    match file {
        None => builder.with_writer(std::io::stderr).init(),
        Some(path) => {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("cannot write the log to {}", path.display()))?;
            builder.with_writer(std::sync::Mutex::new(file)).init();
        }
    }
    Ok(())
}
