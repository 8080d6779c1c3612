//! Hosts: network namespaces on a common link, in a network that leads nowhere else.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::run;

static LANS: AtomicU32 = AtomicU32::new(0);

/// A switch with hosts on it. Removes them when it is dropped.
pub struct Lan {
    name: String,
    number: u32,
}

/// A network namespace with an address on the LAN.
#[derive(Clone)]
pub struct Host {
    pub name: String,
    pub namespace: String,
    pub ip: String,
}

impl Lan {
    pub fn new() -> Lan {
        let number = LANS.fetch_add(1, Ordering::SeqCst);
        let lan = Lan { name: format!("ct{}-{number}", std::process::id()), number };
        run(Command::new("ip").args(["netns", "add", &lan.name]));
        run(&mut inside(&lan.name, "ip", &["link", "add", "switch", "type", "bridge"]));
        run(&mut inside(&lan.name, "ip", &["link", "set", "switch", "up"]));
        lan
    }

    /// The host with this number, 1 to 250.
    pub fn host(&self, name: &str, number: u8) -> Host {
        let namespace = format!("{}-{name}", self.name);
        run(Command::new("ip").args(["netns", "add", &namespace]));
        let port = format!("port{number}");
        let link = ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace];
        run(&mut inside(&self.name, "ip", &link));
        run(&mut inside(&self.name, "ip", &["link", "set", &port, "master", "switch", "up"]));
        let ip = format!("192.168.{}.{number}", 100 + self.number % 100);
        let host = Host { name: name.to_owned(), namespace, ip: ip.clone() };
        run(host.command("ip").args(["link", "set", "lo", "up"]));
        run(host.command("ip").args(["link", "set", "eth0", "up"]));
        run(host.command("ip").args(["addr", "add", &format!("{ip}/24"), "dev", "eth0"]));
        let gateway = format!("192.168.{}.254", 100 + self.number % 100);
        run(host.command("ip").args(["route", "add", "default", "via", &gateway]));
        host
    }
}

impl Host {
    /// A command that runs on this host.
    pub fn command(&self, program: &str) -> Command {
        inside(&self.namespace, program, &[])
    }

    pub fn links(&self) -> String {
        run(self.command("ip").args(["-brief", "link"]))
    }
}

fn inside(namespace: &str, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program).args(args);
    command
}

impl Drop for Lan {
    fn drop(&mut self) {
        let list = Command::new("ip").args(["netns", "list"]).output().map(|output| output.stdout).unwrap_or_default();
        for line in String::from_utf8_lossy(&list).lines() {
            let name = line.split(' ').next().unwrap_or_default();
            if name == self.name || name.starts_with(&format!("{}-", self.name)) {
                Command::new("ip").args(["netns", "del", name]).output().ok();
            }
        }
    }
}
