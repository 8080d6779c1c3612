//! `cluster`: a whole Kubernetes cluster in one executable. Its faces are the subcommands; see `options`.

mod agent;
mod allocator;
mod authority;
mod cli;
mod config_file;
mod control;
mod etcd_api;
mod in_process;
mod instance;
mod join;
mod logging;
mod manifests;
mod node;
mod options;
mod overlay;
mod preflight;
mod saved;
mod server;
mod settings;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::Parser;
use task::Shutdown;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::{Command, CommonOptions, Face};

/// What a wrong flag or key ends with, as for other command lines.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // Before there is a second thread: a shim forks.
    if args.get(1).is_some_and(|face| face == "shim") {
        return runtime::shim_main(args.into_iter().skip(2));
    }
    let args = match config_file::merged(args) {
        Ok(args) => args,
        Err(error) => return misused(&error),
    };
    let outcome = match Command::parse_from(args).face {
        Face::Server(options) => serve(&options.common.clone(), |shutdown| server::run(*options, shutdown)),
        Face::Agent(options) => serve(&options.common.clone(), |shutdown| agent::run(*options, shutdown)),
        Face::Image(options) => briefly(cli::image::run(options, &mut std::io::stdout())),
        Face::Snapshot(options) => briefly(cli::snapshot::run(options, &mut std::io::stdout())),
        Face::Uninstall(options) => briefly(cli::uninstall::run(options, &mut std::io::stdout())),
        Face::Status(options) => briefly(cli::status::run(&options.paths, &mut std::io::stdout())),
        Face::Token(options) => cli::token::run(&options.paths, &mut std::io::stdout()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs something until it ends by itself or the process is told to stop.
fn serve<F>(options: &CommonOptions, run: impl FnOnce(Shutdown) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    logging::start(options.debug, options.log.as_deref())?;
    allocator::give_back_when_idle();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::new();
        let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = shutdown.clone();
        task::spawn("signals", async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
            tracing::info!("stopping; pods go on");
            stop.cancel();
        });
        run(shutdown).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    outcome
}

fn briefly(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn misused(error: &dyn std::error::Error) -> ExitCode {
    say(format_args!("{error}"));
    ExitCode::from(MISUSED)
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn say(text: std::fmt::Arguments<'_>) {
    eprintln!("cluster: {text}");
}
