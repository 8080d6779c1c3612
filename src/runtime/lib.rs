//! The embedded CRI runtime: pods and containers on this node, served over the Container Runtime Interface v1.
//!
//! Any kubelet and `crictl` can use its socket. It knows nothing of Kubernetes and does no networking: the
//! executable wires a [`PodNetwork`]. There are two processes: the server ([`run`]) in the executable, and one
//! shim per pod ([`shim_main`]) that is the containers' parent. The server never forks; a shim has one thread,
//! needs no server, and is taken up again by the next one.
//!
//! ```text
//! kubelet ──CRI──▶ server ──JSON over a Unix socket──▶ shim (one per pod) ──fork──▶ containers
//! ```
//!
//! Invariants:
//! - Whatever happens to the server and its service, containers go on with their PIDs, output, logs and exit codes.
//! - All mounts of a container are in its own mount namespace: there is nothing to unmount, ever.
//! - Nothing that a container or an image controls is looked up by path outside of its root.
//!
//! Limitations: Linux 5.12 or later. No user namespaces, AppArmor, SELinux, checkpoints or CDI devices; 32-bit
//! programs are refused by the default seccomp filter.

mod capabilities;
mod cgroup;
mod disk;
mod seccomp;
mod server;
mod shim;
mod spec;
mod sys;

pub use server::{Error, PodNetwork, RuntimeConfig, run, teardown};
pub use shim::shim_main;
