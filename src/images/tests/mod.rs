//! The whole store against a registry of our own, in a network namespace that each test makes.

mod archives;
mod build;
mod layers;
mod pulls;
mod registry;

use crate::{Images, ImagesConfig, RegistriesConfig};

/// Runs a test on a thread of its own in a fresh network namespace with a loopback.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        assert!(std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        // One thread: all sockets are made in the namespace.
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn open(dir: &std::path::Path, registries: &str) -> Images {
    let registries = RegistriesConfig::parse(registries).unwrap();
    Images::open(ImagesConfig { registries, ..ImagesConfig::new(dir) }).await.unwrap()
}

/// Names in the store's sub-directory.
fn names(dir: &std::path::Path, sub: &str) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir.join(sub))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
