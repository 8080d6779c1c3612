//! A runtime on its own, with pods that are connected to nothing: for this crate's tests, and for `crictl`.
//!
//! ```text
//! node serve <dir> [image tarball]    serve the CRI on <dir>/runtime.sock until killed
//! node teardown <dir>                 remove all that it made
//! node shim ...                       what it starts itself as
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use futures::future::BoxFuture;
use images::{Images, ImagesConfig};
use runtime::{PodNetwork, RuntimeConfig};

struct Nowhere;

impl PodNetwork for Nowhere {
    fn attach<'a>(
        &'a self,
        _sandbox_id: &'a str,
        netns: &'a Path,
        metadata: &'a cri::v1::PodSandboxMetadata,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            match (netns.exists(), metadata.name.as_str()) {
                (_, "unconnectable") => Err("no address is left".into()),
                (true, _) => Ok(vec![IpAddr::from([192, 0, 2, 7])]),
                (false, _) => Err(format!("{} is not there", netns.display())),
            }
        })
    }

    fn detach<'a>(&'a self, _sandbox_id: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let face = args.next().unwrap_or_default();
    if face == "shim" {
        return runtime::shim_main(args);
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let Some(dir) = args.next().map(PathBuf::from) else { return ExitCode::from(2) };
    let tarball = args.next().map(PathBuf::from);
    match face.to_str() {
        Some("serve") => ended(serve(&dir, tarball)),
        Some("teardown") => ended(teardown(&dir)),
        _ => ExitCode::from(2),
    }
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let mut next: Option<&dyn std::error::Error> = Some(&*error);
    while let Some(error) = next {
        tracing::error!(%error, "failed");
        next = error.source();
    }
    ExitCode::FAILURE
}

#[tokio::main]
async fn serve(dir: &Path, tarball: Option<PathBuf>) -> Result<(), Failure> {
    let images = Images::open(ImagesConfig::new(dir.join("images"))).await?;
    if let Some(tarball) = tarball {
        images.import(&tarball).await?;
    }
    runtime::run(config(dir), images, Arc::new(Nowhere), task::Shutdown::new()).await?;
    Ok(())
}

#[tokio::main]
async fn teardown(dir: &Path) -> Result<(), Failure> {
    let images = Images::open(ImagesConfig::new(dir.join("images"))).await?;
    runtime::teardown(config(dir), images, Arc::new(Nowhere)).await?;
    Ok(())
}

fn config(dir: &Path) -> RuntimeConfig {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    RuntimeConfig {
        state_dir: dir.join("containers"),
        run_dir: dir.join("run"),
        socket: dir.join("runtime.sock"),
        cgroup_parent_default: format!("/{name}"),
        shim_executable: "/proc/self/exe".into(),
        seccomp_dir: dir.join("seccomp"),
    }
}
