//! The walls of the house: which room may enter which. ARCHITECTURE.md has the same table.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const WALLS: [(&str, &[&str]); 20] = [
    ("task", &[]),
    ("schema", &[]),
    ("backup", &[]),
    ("cel", &[]),
    ("cri", &[]),
    ("pki", &[]),
    ("api", &["cel", "schema"]),
    ("store", &["task"]),
    ("etcd", &["store", "task"]),
    ("images", &["pki", "task"]),
    ("streaming", &["task"]),
    ("network", &["task"]),
    ("runtime", &["cri", "images", "streaming", "task"]),
    ("client", &["api", "pki", "task"]),
    ("apiserver", &["api", "cel", "pki", "schema", "store", "task"]),
    ("controllers", &["api", "client", "task"]),
    ("scheduler", &["api", "client", "task"]),
    ("kubelet", &["api", "client", "cri", "pki", "task"]),
    ("proxy", &["api", "client", "network", "task"]),
    ("dns", &["api", "client", "task"]),
];

#[test]
fn rooms_enter_only_the_rooms_they_may() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let rooms: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let walls: BTreeMap<&str, &[&str]> = WALLS.into_iter().collect();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        if name == "cluster" {
            continue;
        }
        let may = walls.get(name).unwrap_or_else(|| panic!("the room {name} has no walls yet"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let entered = dependency["name"].as_str().unwrap();
            let for_tests = dependency["kind"] == "dev";
            assert!(!rooms.contains(entered) || for_tests || may.contains(&entered), "{name} enters {entered}");
        }
    }
}
