//! Hosts for tests: network namespaces that live as long as the value that holds them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

pub struct Host {
    namespace: File,
}

impl Host {
    /// A namespace with nothing but a loopback device that is down.
    pub fn new() -> Self {
        let namespace = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self { namespace: namespace.join().unwrap() }
    }

    /// Two hosts on one cable, 192.0.2.1 and 192.0.2.2, each with a default route into nothing.
    pub fn pair() -> (Self, Self) {
        let (one, two) = (Self::new(), Self::new());
        one.sh(&format!("ip link add eth0 mtu 1500 type veth peer name eth0 netns {}", two.path().display()));
        for (host, n) in [(&one, 1), (&two, 2)] {
            host.sh(&format!(
                "ip link set lo up; ip addr add 192.0.2.{n}/24 dev eth0; ip link set eth0 up;
                 ip route add default via 192.0.2.254"
            ));
        }
        (one, two)
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into()
    }

    /// Runs `work` on a thread inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = || {
                setns(self.namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            match scope.spawn(inside).join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a future inside, its blocking threads included.
    pub fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        self.run(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future))
    }

    /// Runs shell commands inside; they have to succeed. Returns what they print.
    pub fn sh(&self, script: &str) -> String {
        self.run(|| {
            let output = Command::new("sh").args(["-ec", script]).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{script}: {error}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    /// Serves `answer` to everyone who connects to this port on any address, for the rest of the test.
    pub fn serve(&self, port: u16, answer: &'static str) {
        let listener = self.run(|| TcpListener::bind(("0.0.0.0", port)).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap();
                let _ = stream.write_all(format!("{answer} to {}", peer.ip()).as_bytes());
            }
        });
    }

    /// What is answered to a connection from inside to `to`.
    pub fn ask(&self, to: &str) -> Result<String, std::io::Error> {
        let to: SocketAddr = to.parse().unwrap();
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }
}
