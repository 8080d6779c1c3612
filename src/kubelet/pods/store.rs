//! The last pod set on disk: one file per pod, so that a node that starts while cut off from the API still runs its
//! pods, and knows what it has to clean up.
//!
//! A file holds the pod as the API gave it, without managed fields. It is readable by root only: environment variables
//! may hold what somebody should have put into a Secret.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::objects::PodExt;

const FILE: &str = "pod.json";

fn path(pods_dir: &Path, uid: &str) -> PathBuf {
    pods_dir.join(uid).join(FILE)
}

/// Keeps the pod. Not synced: what is lost in a power cut comes again from the API.
pub fn save(pods_dir: &Path, pod: &Pod) -> io::Result<()> {
    let path = path(pods_dir, pod.uid());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let next = path.with_extension("json.next");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    let bytes = serde_json::to_vec(pod).map_err(io::Error::other)?;
    io::Write::write_all(&mut file, &bytes)?;
    std::fs::rename(&next, &path)
}

/// All pods that were kept. Files that cannot be read are reported and left out.
pub fn load(pods_dir: &Path) -> Vec<Pod> {
    let mut pods = Vec::new();
    for entry in std::fs::read_dir(pods_dir).into_iter().flatten().flatten() {
        let path = entry.path().join(FILE);
        let Ok(bytes) = std::fs::read(&path) else { continue };
        match serde_json::from_slice::<Pod>(&bytes) {
            Ok(pod) if entry.file_name().to_str() == Some(pod.uid()) => pods.push(pod),
            Ok(_) => tracing::warn!(path = %path.display(), "the file holds another pod; it is left out"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "pod on disk not readable; it is left out"),
        }
    }
    pods
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::pod;
    use serde_json::json;

    #[test]
    fn pods_are_kept_and_damage_is_left_out() {
        let temp = tempfile::tempdir().unwrap();
        let kept = pod(json!({"spec": {"containers": [{"name": "a"}]}}));
        save(temp.path(), &kept).unwrap();
        save(temp.path(), &kept).unwrap();
        std::fs::create_dir(temp.path().join("uid-2")).unwrap();
        std::fs::write(temp.path().join("uid-2/pod.json"), "{").unwrap();
        std::fs::create_dir(temp.path().join("uid-3")).unwrap();
        assert_eq!(load(temp.path()), [kept]);
    }
}
