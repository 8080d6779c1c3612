//! Commands in running containers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use cri::v1;
use nix::fcntl::OFlag;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tonic::Status;

use super::Runtime;
use super::containers::shim_status;
use super::sandboxes::internal;
use super::shims::ShimError;
use super::state::Container;
use crate::shim::protocol::{Reply, Request, Streams};

/// What is kept of each of a command's streams; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 32 * 1024;
/// How long output is awaited after the command has ended: something it left behind may hold the pipe open.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// A pipe: our end to read, theirs to write.
pub fn output_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}

/// A pipe: our end to write, theirs to read.
pub fn input_pipe() -> io::Result<(pipe::Sender, OwnedFd)> {
    let (theirs, ours) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((pipe::Sender::from_owned_fd(ours)?, theirs))
}

impl Runtime {
    /// The container, if it runs.
    pub fn running(&self, id: &str) -> Result<std::sync::Arc<Container>, Status> {
        let container = self.container(id)?;
        match container.state() {
            v1::ContainerState::ContainerRunning => Ok(container),
            other => Err(Status::failed_precondition(format!("container is in {} state", other.as_str_name()))),
        }
    }

    pub async fn exec_sync(&self, request: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse, Status> {
        let container = self.running(&request.container_id)?;
        if request.cmd.is_empty() {
            return Err(Status::invalid_argument("no command specified"));
        }
        let work = self.exec_to_end(&container, request.cmd);
        if request.timeout <= 0 {
            return work.await;
        }
        let timeout = Duration::from_secs(request.timeout.unsigned_abs());
        tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!("command timed out: timeout {timeout:?} exceeded")))
        })
    }

    /// Dropping it kills the command.
    async fn exec_to_end(&self, container: &Container, args: Vec<String>) -> Result<v1::ExecSyncResponse, Status> {
        let sandbox = self.sandbox(&container.record.sandbox_id)?;
        let failed = |error| internal("failed to exec in container", error);
        let (mut stdout, their_stdout) = output_pipe().map_err(failed)?;
        let (mut stderr, their_stderr) = output_pipe().map_err(failed)?;
        let request = Request::Exec {
            container: container.id.clone(),
            args,
            tty: false,
            streams: Streams { stdin: false, stdout: true, stderr: true },
        };
        let refused = |error| shim_status("failed to exec in container", error);
        let mut conversation =
            sandbox.shim.ask(&request, &[their_stdout.as_fd(), their_stderr.as_fd()]).await.map_err(refused)?;
        drop((their_stdout, their_stderr));
        if !matches!(conversation.answer().await.map_err(refused)?, Reply::Started { .. }) {
            return Err(refused(ShimError::Unexpected));
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut reading = Box::pin(async { tokio::join!(read(&mut stdout, &mut out), read(&mut stderr, &mut err)) });
        let mut ended = Box::pin(conversation.answer());
        let mut at_end = false;
        let answer = loop {
            tokio::select! {
                answer = &mut ended => break answer,
                _ = &mut reading, if !at_end => at_end = true,
            }
        };
        if !at_end {
            let _ = tokio::time::timeout(DRAIN_MAX, &mut reading).await;
        }
        drop(reading);
        match answer.map_err(refused)? {
            Reply::Exited { code } => Ok(v1::ExecSyncResponse { stdout: out, stderr: err, exit_code: code }),
            _ => Err(refused(ShimError::Unexpected)),
        }
    }
}

async fn read(from: &mut pipe::Receiver, into: &mut Vec<u8>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let room = OUTPUT_BYTES_MAX.saturating_sub(into.len()).min(count);
        into.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
}
