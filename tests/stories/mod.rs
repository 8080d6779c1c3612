//! One story a file.

mod backups;
mod bad_input;
mod clients;
mod controllers;
mod etcd;
mod first_deployment;
mod image_files;
mod kubectl;
mod pods;
mod restarts;
mod two_nodes;
mod uninstall;

use std::time::Duration;

use crate::support::cluster::Node;
use crate::support::hosts::Lan;
use crate::support::images;
use crate::support::registry::Registry;

/// A LAN with a registry that has `busybox:1`, and a server on it that knows the registry.
struct Stage {
    // Dropped in this order: the nodes before their network.
    server: Node,
    registry: Registry,
    lan: Lan,
}

const SOON: Duration = Duration::from_secs(60);

fn stage() -> Stage {
    let lan = Lan::new();
    let registry = Registry::start(&lan.host("registry", 250));
    registry.push("library/busybox:1", &images::busybox());
    let server = Node::server(&lan.host("one", 1));
    std::fs::write(server.path("registries.yaml"), registry.registries_yaml()).unwrap();
    Stage { server: server.start(), registry, lan }
}
