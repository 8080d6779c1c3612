//! Compares with reference data of upstream, where it lies beside the repository.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test, its helpers included")]

use std::path::{Path, PathBuf};

use schema::Types;
use schema::validation::{check_types, unknown_fields};
use serde_json::Value;

/// The reference data, or None with a word on why.
fn shared(what: &str) -> Option<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let candidates = [repository.join("../shared"), repository.join("../../shared")];
    let found = candidates.iter().map(|c| c.join("kubernetes-1.36").join(what)).find(|p| p.is_dir());
    if found.is_none() {
        eprintln!("nothing compared: there is no ../shared/kubernetes-1.36/{what} beside the repository");
    }
    found
}

fn documents(directory: &Path) -> Vec<(String, Value)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .map(|p| {
            let name = p.file_stem().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_slice(&std::fs::read(&p).unwrap()).unwrap())
        })
        .collect()
}

#[test]
fn filled_in_objects_have_only_known_fields_of_the_right_types() {
    let Some(directory) = shared("roundtrip") else { return };
    let mut compared = 0;
    for (name, value) in documents(&directory) {
        let (Some(api_version), Some(kind)) = (value["apiVersion"].as_str(), value["kind"].as_str()) else { continue };
        let Some(ty) = Types::builtin().api_version_kind(api_version, kind) else { continue };
        assert_eq!(unknown_fields(&value, ty), Vec::<String>::new(), "{name}");
        if let Err(e) = check_types(&value, ty) {
            panic!("{name}: {e}");
        }
        compared += 1;
    }
    assert!(compared > 90, "{compared}");
}
