//! A container's standard streams: its output goes to the log and to every attached client, what clients type
//! goes to its stdin.
//!
//! The container is never kept waiting for a client: one that takes its output too slowly is let go.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use jiff::Timestamp;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::EpollFlags;

use super::log::{Log, Stream};
use super::poller::{Poller, Source};

/// What is read of a stream at a time.
const READ_BYTES: usize = 32 * 1024;
/// How much output waits for an attached client before it is let go.
const BACKLOG_BYTES_MAX: usize = 1 << 20;
/// Clients attached to one container.
const ATTACHED_MAX: usize = 64;

/// A descriptor that is being watched.
#[derive(Debug)]
struct Watched {
    file: File,
    token: u64,
}

#[derive(Debug)]
struct Output {
    /// Kept under the client's number for as long as it has something to take.
    file: File,
    backlog: Vec<u8>,
    token: Option<u64>,
}

#[derive(Debug, Default)]
struct Attached {
    input: Option<Watched>,
    outputs: [Option<Output>; 2],
}

#[derive(Debug)]
pub struct Stdio {
    container: Rc<str>,
    log: Log,
    outputs: [Option<Watched>; 2],
    is_tty: bool,
    stdin: Option<File>,
    stdin_once: bool,
    /// Typed and not taken by the container yet. While there is something, clients are not listened to.
    typed: Vec<u8>,
    stdin_token: Option<u64>,
    attached: BTreeMap<u64, Attached>,
    next_attached: u64,
}

/// The shim's ends of a container's streams.
#[derive(Debug, Default)]
pub struct Ends {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// With a terminal it is stdin and stdout.
    pub console: Option<OwnedFd>,
}

impl Stdio {
    pub fn new(container: Rc<str>, log: Log, stdin_once: bool) -> Self {
        Self {
            container,
            log,
            outputs: [None, None],
            is_tty: false,
            stdin: None,
            stdin_once,
            typed: Vec::new(),
            stdin_token: None,
            attached: BTreeMap::new(),
            next_attached: 0,
        }
    }

    pub fn open(&mut self, ends: Ends, poller: &mut Poller) -> io::Result<()> {
        if let Some(console) = ends.console {
            self.is_tty = true;
            nonblocking(&console)?;
            self.stdin = Some(File::from(console.try_clone()?));
            self.outputs[0] = Some(self.watch_output(console, Stream::Stdout, poller)?);
            return Ok(());
        }
        if let Some(stdin) = ends.stdin {
            nonblocking(&stdin)?;
            self.stdin = Some(stdin.into());
        }
        for (stream, end) in [(Stream::Stdout, ends.stdout), (Stream::Stderr, ends.stderr)] {
            if let Some(end) = end {
                nonblocking(&end)?;
                self.outputs[stream as usize] = Some(self.watch_output(end, stream, poller)?);
            }
        }
        Ok(())
    }

    fn watch_output(&self, fd: OwnedFd, stream: Stream, poller: &mut Poller) -> io::Result<Watched> {
        let token = poller.add(&fd, Source::Output(self.container.clone(), stream), EpollFlags::EPOLLIN)?;
        Ok(Watched { file: fd.into(), token })
    }

    pub fn reopen_log(&mut self) -> io::Result<()> {
        self.log.reopen()
    }

    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        match &self.stdin {
            Some(console) if self.is_tty => crate::sys::set_window_size(console.as_fd(), columns, rows),
            _ => Err(io::Error::new(ErrorKind::Unsupported, "the container has no terminal")),
        }
    }

    /// The container wrote something. Takes one portion; the poller tells if there is more.
    pub fn output_ready(&mut self, stream: Stream, poller: &mut Poller) {
        self.take_output(stream, poller);
    }

    /// Whether there may be more.
    fn take_output(&mut self, stream: Stream, poller: &mut Poller) -> bool {
        let Some(output) = &mut self.outputs[stream as usize] else { return false };
        let mut buffer = [0; READ_BYTES];
        match output.file.read(&mut buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                error.kind() == ErrorKind::Interrupted
            }
            // A terminal whose other side is closed reads as an I/O error.
            Ok(0) | Err(_) => {
                let token = output.token;
                poller.remove(&output.file, token);
                self.outputs[stream as usize] = None;
                false
            }
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                self.log.write(stream, bytes, Timestamp::now());
                let container = self.container.clone();
                for (number, attached) in &mut self.attached {
                    let slot = &mut attached.outputs[stream as usize];
                    if let Some(output) = slot
                        && !output.send(bytes, &container, *number, poller)
                    {
                        output.close(poller);
                        *slot = None;
                    }
                }
                self.forget_finished();
                true
            }
        }
    }

    /// Joins a client. With `stdin` what it types reaches the container, if that has one.
    pub fn attach(&mut self, streams: [Option<OwnedFd>; 3], poller: &mut Poller) -> io::Result<()> {
        if self.attached.len() >= ATTACHED_MAX {
            return Err(io::Error::other("too many clients are attached"));
        }
        let number = self.next_attached;
        self.next_attached += 1;
        let [stdin, stdout, stderr] = streams;
        let mut attached = Attached::default();
        if let Some(stdin) = stdin.filter(|_| self.stdin.is_some()) {
            nonblocking(&stdin)?;
            let flags = if self.typed.is_empty() { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
            let token = poller.add(&stdin, Source::AttachedInput(self.container.clone(), number), flags)?;
            attached.input = Some(Watched { file: stdin.into(), token });
        }
        for (slot, end) in attached.outputs.iter_mut().zip([stdout, stderr]) {
            if let Some(end) = end {
                nonblocking(&end)?;
                *slot = Some(Output { file: end.into(), backlog: Vec::new(), token: None });
            }
        }
        self.attached.insert(number, attached);
        Ok(())
    }

    /// A client typed, or closed its side.
    pub fn attached_input(&mut self, number: u64, poller: &mut Poller) {
        let Some(input) = self.attached.get_mut(&number).and_then(|attached| attached.input.as_mut()) else { return };
        let mut buffer = [0; READ_BYTES];
        match input.file.read(&mut buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(0) | Err(_) => {
                let token = input.token;
                poller.remove(&input.file, token);
                if let Some(attached) = self.attached.get_mut(&number) {
                    attached.input = None;
                }
                if self.stdin_once && !self.is_tty {
                    self.close_stdin(poller);
                }
                self.forget_finished();
            }
            Ok(count) => {
                self.typed.extend_from_slice(buffer.get(..count).unwrap_or_default());
                self.feed(poller);
            }
        }
    }

    /// Writes what was typed, as far as the container takes it.
    pub fn feed(&mut self, poller: &mut Poller) {
        let Some(stdin) = &mut self.stdin else {
            self.typed.clear();
            return;
        };
        let was_waiting = self.stdin_token.is_some();
        match write_some(stdin, &mut self.typed) {
            Ok(()) => {}
            Err(_) => return self.close_stdin(poller),
        }
        let is_waiting = !self.typed.is_empty();
        if is_waiting == was_waiting {
            return;
        }
        if is_waiting {
            // A terminal is already watched for output under its other descriptor; this one is a duplicate.
            self.stdin_token = poller.add(&*stdin, Source::Input(self.container.clone()), EpollFlags::EPOLLOUT).ok();
        } else if let Some(token) = self.stdin_token.take() {
            poller.remove(&*stdin, token);
        }
        let flags = if is_waiting { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
        for input in self.attached.values().filter_map(|attached| attached.input.as_ref()) {
            poller.change(&input.file, input.token, flags);
        }
    }

    fn close_stdin(&mut self, poller: &mut Poller) {
        if let (Some(stdin), Some(token)) = (&self.stdin, self.stdin_token.take()) {
            poller.remove(stdin, token);
        }
        self.stdin = None;
        self.typed.clear();
        for attached in self.attached.values_mut() {
            if let Some(input) = attached.input.take() {
                poller.remove(&input.file, input.token);
            }
        }
    }

    /// A client takes output again.
    pub fn attached_output(&mut self, number: u64, poller: &mut Poller) {
        let container = self.container.clone();
        if let Some(attached) = self.attached.get_mut(&number) {
            for slot in &mut attached.outputs {
                if let Some(output) = slot
                    && !output.send(&[], &container, number, poller)
                {
                    output.close(poller);
                    *slot = None;
                }
            }
        }
        self.forget_finished();
    }

    /// The container has exited: takes what is still in its pipes and closes everything. What clients have not
    /// taken yet is written to their pipes as far as it fits.
    pub fn finish(&mut self, poller: &mut Poller) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.take_output(stream, poller) {}
            if let Some(output) = self.outputs[stream as usize].take() {
                poller.remove(&output.file, output.token);
            }
        }
        self.log.finish(Timestamp::now());
        self.close_stdin(poller);
        for attached in std::mem::take(&mut self.attached).into_values() {
            for mut output in attached.outputs.into_iter().flatten() {
                let _ = write_some(&mut output.file, &mut output.backlog);
                output.close(poller);
            }
        }
    }

    fn forget_finished(&mut self) {
        self.attached.retain(|_, attached| attached.input.is_some() || attached.outputs.iter().any(Option::is_some));
    }
}

impl Output {
    /// False when the client is gone or too slow.
    fn send(&mut self, bytes: &[u8], container: &Rc<str>, number: u64, poller: &mut Poller) -> bool {
        self.backlog.extend_from_slice(bytes);
        if write_some(&mut self.file, &mut self.backlog).is_err() || self.backlog.len() > BACKLOG_BYTES_MAX {
            return false;
        }
        match (self.backlog.is_empty(), self.token) {
            (false, None) => {
                let source = Source::AttachedOutput(container.clone(), number);
                self.token = poller.add(&self.file, source, EpollFlags::EPOLLOUT).ok();
                self.token.is_some()
            }
            (true, Some(token)) => {
                poller.remove(&self.file, token);
                self.token = None;
                true
            }
            _ => true,
        }
    }

    fn close(&mut self, poller: &mut Poller) {
        if let Some(token) = self.token.take() {
            poller.remove(&self.file, token);
        }
    }
}

fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Writes as much as is taken without waiting, and removes it from `bytes`.
fn write_some(file: &mut File, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    bytes.drain(..done);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::pipe2;

    /// A container's streams with the container's ends in hand.
    struct Rig {
        poller: Poller,
        stdio: Stdio,
        stdin: File,
        stdout: Option<File>,
        dir: tempfile::TempDir,
    }

    fn pipe() -> (File, File) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        (read.into(), write.into())
    }

    fn rig(stdin_once: bool) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(Some(dir.path().join("log"))).unwrap();
        let mut poller = Poller::new().unwrap();
        let mut stdio = Stdio::new("c".into(), log, stdin_once);
        let ((stdin, our_stdin), (our_stdout, stdout)) = (pipe(), pipe());
        let ends = Ends { stdin: Some(our_stdin.into()), stdout: Some(our_stdout.into()), ..Ends::default() };
        stdio.open(ends, &mut poller).unwrap();
        Rig { poller, stdio, stdin, stdout: Some(stdout), dir }
    }

    impl Rig {
        /// Attaches a client: what it types into, what it reads from.
        fn attach(&mut self) -> (File, File) {
            let ((their_stdin, typed), (read, their_stdout)) = (pipe(), pipe());
            let streams = [Some(their_stdin.into()), Some(their_stdout.into()), None];
            self.stdio.attach(streams, &mut self.poller).unwrap();
            (typed, read)
        }

        fn say(&mut self, text: &[u8]) {
            self.stdout.as_mut().unwrap().write_all(text).unwrap();
            self.stdio.output_ready(Stream::Stdout, &mut self.poller);
        }
    }

    fn read_to_end(mut file: File) -> String {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn output_reaches_the_log_and_every_client_until_the_end() {
        let mut rig = rig(false);
        rig.say(b"before\n");
        let (one, two) = (rig.attach(), rig.attach());
        rig.say(b"both\n");
        drop(two);
        rig.say(b"one\n");
        rig.stdout.as_mut().unwrap().write_all(b"last").unwrap();
        rig.stdio.finish(&mut rig.poller);
        assert_eq!(read_to_end(one.1), "both\none\nlast");
        let log = std::fs::read_to_string(rig.dir.path().join("log")).unwrap();
        let texts: Vec<&str> = log.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(texts, ["before", "both", "one", "last"]);
    }

    #[test]
    fn typing_reaches_the_container_and_once_ends_with_the_client() {
        for once in [true, false] {
            let mut rig = rig(once);
            let (mut typed, _read) = rig.attach();
            typed.write_all(b"hello").unwrap();
            rig.stdio.attached_input(0, &mut rig.poller);
            drop(typed);
            rig.stdio.attached_input(0, &mut rig.poller);
            assert_eq!(rig.stdio.stdin.is_none(), once);
            rig.stdio.finish(&mut rig.poller);
            assert_eq!(read_to_end(rig.stdin), "hello");
        }
    }

    #[test]
    fn a_container_that_does_not_read_stops_its_clients_typing() {
        let mut rig = rig(false);
        let (mut typed, _read) = rig.attach();
        let portion = vec![b'x'; READ_BYTES];
        for _ in 0..4 {
            typed.write_all(&portion).unwrap();
            rig.stdio.attached_input(0, &mut rig.poller);
        }
        assert!(!rig.stdio.typed.is_empty() && rig.stdio.stdin_token.is_some());
        let mut taken = vec![0; 4 * READ_BYTES];
        let mut count = rig.stdin.read(&mut taken).unwrap();
        while rig.stdio.stdin_token.is_some() {
            rig.stdio.feed(&mut rig.poller);
            count += rig.stdin.read(&mut taken).unwrap();
        }
        assert!(count > 2 * READ_BYTES && rig.stdio.typed.is_empty());
    }

    #[test]
    fn a_client_that_does_not_read_is_let_go() {
        let mut rig = rig(false);
        let (typed, read) = rig.attach();
        drop(typed);
        rig.stdio.attached_input(0, &mut rig.poller);
        let portion = vec![b'x'; READ_BYTES];
        for _ in 0..(BACKLOG_BYTES_MAX / READ_BYTES + 4) {
            rig.say(&portion);
        }
        assert!(rig.stdio.attached.is_empty(), "the container was not kept waiting");
        assert!(read_to_end(read).len() < BACKLOG_BYTES_MAX);
    }
}
