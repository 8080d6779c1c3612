//! What is said on a shim's socket: frames of a little-endian `u32` length and that much JSON. Descriptors
//! travel beside a frame's first byte. A connection carries one request and its replies.

use std::io;
use std::os::fd::OwnedFd;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::{ContainerSpec, ContainerStatus};

/// Largest frame; a container with very long arguments and environment fits.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Most descriptors with one frame: stdin, stdout, stderr.
pub const FDS_MAX: usize = 3;

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Answered with `Status` once the program runs, or with `Failed`.
    Start(Box<ContainerSpec>),
    /// To the container's first process, or to all of its processes.
    Kill {
        container: String,
        signal: i32,
        all: bool,
    },
    /// Runs a command in a container. With `tty` the only descriptor is a socket to which the terminal's
    /// master is sent; else the descriptors named by `streams` follow. Answered with `Started` and later
    /// `Exited`; closing the connection kills the command.
    Exec {
        container: String,
        args: Vec<String>,
        tty: bool,
        streams: Streams,
    },
    /// Joins a container's standard streams; they end with the container.
    Attach {
        container: String,
        streams: Streams,
    },
    Resize {
        container: String,
        columns: u16,
        rows: u16,
    },
    ReopenLog {
        container: String,
    },
    /// Forgets an exited container.
    Forget {
        container: String,
    },
    /// All containers' statuses, and then one `Status` whenever one of them changes, for as long as the
    /// connection lasts.
    Watch,
    /// A TCP socket in the pod's network, connecting or connected to the port on loopback.
    Connect {
        port: u16,
        ipv6: bool,
    },
    /// Kills all containers and ends.
    Shutdown,
}

/// Which of the three descriptors come with a request, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Started {
        pid: i32,
    },
    Exited {
        code: i32,
    },
    Status {
        container: String,
        status: ContainerStatus,
    },
    /// The end of the statuses that were there when a watch began.
    Synced {
        pid: i32,
    },
    Failed {
        kind: FailureKind,
        message: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    NotFound,
    NotRunning,
    Other,
}

/// One frame with its length in front.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(io::Error::other)?;
    let len = frame.len() - 4;
    if len > FRAME_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    frame.splice(..4, (len as u32).to_le_bytes());
    Ok(frame)
}

/// Takes the first whole frame off `buffer`, if there is one.
pub fn decode<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*head) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let Some(body) = buffer.get(4..4 + len) else { return Ok(None) };
    let message = serde_json::from_slice(body).map_err(io::Error::other)?;
    buffer.drain(..4 + len);
    Ok(Some(message))
}

/// The descriptors of a request by their place, as `streams` says.
pub fn by_stream(streams: Streams, fds: Vec<OwnedFd>) -> [Option<OwnedFd>; 3] {
    let mut fds = fds.into_iter();
    [streams.stdin, streams.stdout, streams.stderr].map(|present| if present { fds.next() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_off_whole_and_in_order() {
        let mut buffer = encode(&Request::ReopenLog { container: "a".into() }).unwrap();
        buffer.extend(encode(&Request::Watch).unwrap());
        let rest = buffer.split_off(buffer.len() - 1);
        assert!(matches!(decode(&mut buffer).unwrap(), Some(Request::ReopenLog { container }) if container == "a"));
        assert!(decode::<Request>(&mut buffer).unwrap().is_none());
        buffer.extend(rest);
        assert!(matches!(decode(&mut buffer).unwrap(), Some(Request::Watch)));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused() {
        assert!(decode::<Request>(&mut vec![255; 8]).is_err());
        assert!(decode::<Request>(&mut b"\x02\0\0\0{]".to_vec()).is_err());
    }
}
