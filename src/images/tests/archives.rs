//! Importing tarballs, and what a restart makes of the store.

use serde_json::json;

use super::build::{Layer, gzip, image, tarball, zstd};
use super::{names, open};
use crate::chain::sha256;
use crate::{Images, chain_text};

async fn import(images: &Images, bytes: &[u8]) -> Result<Vec<std::sync::Arc<crate::Image>>, crate::Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    images.import(file.path()).await
}

#[tokio::test]
async fn a_docker_archive_is_imported_plain_and_compressed() {
    let base = Layer::default().dir("bin/", 0o755).file("bin/sh", "#!").tar();
    let top = Layer::default().file("app", "a").tar();
    let built = image(&[(base.clone(), &base), (gzip(&top), &top)], true);
    let manifest = json!([{
        "Config": "c.json", "RepoTags": ["app:1", "quay.io/me/app:2"], "Layers": ["l/0.tar", "l/1.tar"],
    }]);
    let archive = tarball(&[
        ("c.json", &built.config),
        ("l/0.tar", &base),
        ("l/1.tar", &gzip(&top)),
        ("manifest.json", manifest.to_string().as_bytes()),
    ]);
    for bytes in [archive.clone(), gzip(&archive), zstd(&archive)] {
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path(), "").await;
        let imported = import(&images, &bytes).await.unwrap();
        assert_eq!(imported.len(), 1);
        assert_eq!(imported[0].repo_tags, ["docker.io/library/app:1", "quay.io/me/app:2"]);
        assert_eq!(images.get("app:1").unwrap().id, built.id());
        assert_eq!(images.get(&built.id()["sha256:".len()..]).unwrap().id, built.id());
        assert!(names(dir.path(), "tmp").is_empty());
        let rootfs = images.prepare_rootfs("app:1", "c").await.unwrap();
        assert_eq!(rootfs, images.prepare_rootfs(&built.id(), "c").await.unwrap());
        assert_eq!(std::fs::read(rootfs.lowerdirs[0].join("app")).unwrap(), b"a");
        std::fs::write(rootfs.upperdir.join("f"), "12345").unwrap();
        assert_eq!(images.rootfs_usage("c").await.unwrap().unwrap().inodes_used, 1);
        assert!(images.prepare_rootfs(&built.id(), "../c").await.is_err());
    }
}

#[tokio::test]
async fn an_oci_layout_is_imported_and_its_blobs_are_checked() {
    let tar = Layer::default().file("a", "b").tar();
    let built = image(&[(zstd(&tar), &tar)], false);
    let index = json!({"schemaVersion": 2, "manifests": [{
        "digest": sha256(&built.manifest), "size": built.manifest.len(),
        "annotations": {"io.containerd.image.name": "docker.io/me/app:3", "org.opencontainers.image.ref.name": "3"},
    }]})
    .to_string();
    let names_of: Vec<String> =
        built.blobs.keys().map(|digest| format!("blobs/{}", digest.replace(':', "/"))).collect();
    let mut members: Vec<(&str, &[u8])> = vec![("oci-layout", b"{}"), ("index.json", index.as_bytes())];
    members.extend(names_of.iter().map(String::as_str).zip(built.blobs.values().map(Vec::as_slice)));
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), "").await;
    let imported = import(&images, &tarball(&members)).await.unwrap();
    assert_eq!(imported[0].repo_tags, ["docker.io/me/app:3"]);
    assert_eq!(imported[0].repo_digests, [format!("docker.io/me/app@{}", sha256(&built.manifest))]);

    images.remove("me/app:3").await.unwrap();
    let mut damaged = members.clone();
    let other = zstd(&Layer::default().file("a", "c").tar());
    let victim = format!("blobs/{}", built.layer_digests[0].replace(':', "/"));
    damaged.iter_mut().find(|(name, _)| *name == victim).unwrap().1 = &other;
    let text = chain_text(&import(&images, &tarball(&damaged)).await.unwrap_err());
    assert!(text.contains("digest mismatch"), "{text}");
    assert!(images.list().is_empty() && names(dir.path(), "layers").is_empty() && names(dir.path(), "tmp").is_empty());
    let text = chain_text(&import(&images, &tarball(&[("x", b"y")])).await.unwrap_err());
    assert!(text.contains("is no image archive"), "{text}");
    assert!(import(&images, b"not a tarball").await.is_err());
}

#[tokio::test]
async fn a_damaged_store_opens_without_what_is_damaged() {
    let tar = Layer::default().file("a", "b").tar();
    let built = image(&[(tar.clone(), &tar)], true);
    let manifest = json!([{"Config": "c", "RepoTags": ["x:1"], "Layers": ["l"]}]).to_string();
    let archive = tarball(&[("c", &built.config), ("l", &tar), ("manifest.json", manifest.as_bytes())]);
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), "").await;
    import(&images, &archive).await.unwrap();
    drop(images);
    // What a kill in the middle of a pull leaves, and what a disk may do.
    std::fs::create_dir_all(dir.path().join("tmp/7/fs/half")).unwrap();
    std::fs::write(dir.path().join("images").join("junk.json"), "{").unwrap();
    let images = open(dir.path(), "").await;
    assert_eq!(images.list().len(), 1);
    assert!(names(dir.path(), "tmp").is_empty());
    drop(images);
    let layer = dir.path().join("layers").join(&names(dir.path(), "layers")[0]);
    std::fs::write(layer.join("layer.json"), "").unwrap();
    let images = open(dir.path(), "").await;
    assert!(images.list().is_empty() && names(dir.path(), "layers").is_empty());
    import(&images, &archive).await.unwrap();
    assert!(images.get("x:1").is_some());
}
