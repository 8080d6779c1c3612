//! Static pods: manifests in a directory, run without the API.
//!
//! The directory is watched with inotify. A pod's uid is made from its file and contents, so that a changed manifest is another
//! pod. Limitation: no mirror pods yet, so static pods do not show in the cluster's API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use nix::sys::inotify::AddWatchFlags;
use task::Shutdown;

use super::Pods;
use crate::inotify::Watch;
use crate::objects::{CONFIG_HASH_ANNOTATION, CONFIG_SOURCE_ANNOTATION, PodExt, fnv1a};

const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;

pub async fn follow(dir: PathBuf, pods: Arc<Pods>, shutdown: Shutdown) {
    let watch = match watch(&dir) {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "static pods are not followed");
            return;
        }
    };
    let mut known: BTreeMap<String, Pod> = BTreeMap::new();
    loop {
        let found = read(&dir, pods.node_name());
        for uid in known.keys().filter(|uid| !found.contains_key(*uid)) {
            pods.remove(uid);
        }
        for (uid, pod) in &found {
            if !known.contains_key(uid) {
                pods.set(Arc::new(pod.clone()));
            }
        }
        known = found;
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = watch.changed() => if let Err(error) = changed {
                tracing::warn!(%error, "static pods are no longer followed");
                return;
            },
        }
    }
}

fn watch(dir: &Path) -> std::io::Result<Watch> {
    std::fs::create_dir_all(dir)?;
    let changes = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE;
    Watch::new(dir, changes)
}

/// The pods of all manifests, by uid. What is no pod is reported and left out.
pub fn read(dir: &Path, node_name: &str) -> BTreeMap<String, Pod> {
    let mut pods = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_manifest = path.extension().is_some_and(|ext| ["yaml", "yml", "json"].iter().any(|known| ext == *known));
        let is_small = entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MANIFEST_BYTES_MAX);
        if !is_manifest || !is_small {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        match parse(&path, &text, node_name) {
            Ok(pod) => {
                pods.insert(pod.uid().to_owned(), pod);
            }
            Err(error) => tracing::warn!(path = %path.display(), error, "static pod not readable; it is left out"),
        }
    }
    pods
}

fn parse(path: &Path, text: &str, node_name: &str) -> Result<Pod, String> {
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if value["kind"] != "Pod" {
        return Err("kind is not Pod".to_owned());
    }
    let mut pod: Pod = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let seed = format!("{node_name}/{}/{text}", path.display());
    // Four different sums of one text: a uid that stays the same as long as the file does.
    let parts: Vec<String> =
        (0u8..4).map(|salt| format!("{:08x}", fnv1a([salt].into_iter().chain(seed.bytes())))).collect();
    let hash = parts.concat();
    let meta = &mut pod.metadata;
    let name = meta.name.take().filter(|name| !name.is_empty()).ok_or("metadata.name is missing")?;
    meta.name = Some(format!("{name}-{}", node_name.to_lowercase()));
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    meta.uid = Some(hash.clone());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(CONFIG_HASH_ANNOTATION.to_owned(), hash);
    annotations.insert(CONFIG_SOURCE_ANNOTATION.to_owned(), "file".to_owned());
    if pod.spec.as_ref().is_none_or(|spec| spec.containers.is_empty()) {
        return Err("spec.containers is missing".to_owned());
    }
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_become_pods() {
        let text =
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: a\n    image: b\n";
        let one = parse(Path::new("/m/a.yaml"), text, "Node").unwrap();
        assert_eq!((one.name(), one.ns(), one.is_static()), ("web-node", "default", true));
        let other = parse(Path::new("/m/a.yaml"), &text.replace("image: b", "image: c"), "Node").unwrap();
        assert_ne!(one.uid(), other.uid());
        assert!(parse(Path::new("/m/a.yaml"), "kind: Service", "n").is_err());
        assert!(parse(Path::new("/m/a.yaml"), "][", "n").is_err());
    }
}
