//! Pulling.

use std::sync::atomic::{AtomicU64, Ordering};

use super::build::{Layer, gzip, image, index, noise, zstd};
use super::registry::{Guard, TestRegistry};
use super::{in_namespace, names, open};
use crate::chain::sha256;
use crate::{Auth, Error, Images, PullError, chain_text};

fn user() -> Option<Auth> {
    Some(Auth { username: "user".into(), password: "pass".into(), ..Auth::default() })
}

/// A base in gzip and a layer in zstd on top.
fn two_layers() -> super::build::Built {
    let base = Layer::default().dir("./", 0o755).dir("tmp/", 0o1777).file("etc/a", "base").tar();
    let top = Layer::default().file("tmp/b", &noise(300_000)).tar();
    image(&[(gzip(&base), &base), (zstd(&top), &top)], true)
}

#[test]
fn an_index_with_gzip_and_zstd_layers_becomes_a_root_file_system() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let registry = TestRegistry::start().await;
        let built = two_layers();
        registry.add("a/b", "1", &built);
        let index = index(&built);
        registry.content.lock().paths.insert("a/b/manifests/v".into(), index.clone());
        let images = open(dir.path(), "").await;
        let received = AtomicU64::new(0);
        let name = registry.reference("a/b:v");
        let image = images
            .pull(&name, None, |progress| {
                assert!(progress.done_bytes <= progress.total_bytes);
                received.fetch_max(progress.done_bytes, Ordering::Relaxed);
            })
            .await
            .unwrap();
        assert_eq!(image.id, built.id());
        assert_eq!(image.repo_tags.join(" "), name);
        assert_eq!(image.repo_digests, [format!("{}@{}", registry.reference("a/b"), sha256(&index))]);
        assert_eq!(image.config.config().as_ref().unwrap().user().as_deref(), Some("7"));
        assert!(received.into_inner() > 200_000);
        assert!(image.size_bytes >= 300_000);

        let rootfs = images.prepare_rootfs(&image.id, "c1").await.unwrap();
        assert_eq!(std::fs::read(rootfs.lowerdirs[1].join("etc/a")).unwrap(), b"base");
        assert_eq!(std::fs::metadata(rootfs.lowerdirs[0].join("tmp/b")).unwrap().len(), 300_000);
        // The upper layer does not mention tmp/: it must stay what it is below.
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(rootfs.lowerdirs[0].join("tmp")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777);

        // Again: only the manifest is asked for. By digest: nobody is.
        let before = registry.count("/v2/");
        images.pull(&name, None, |_| {}).await.unwrap();
        assert_eq!(registry.count("/v2/") - before, 2);
        let by_digest = format!("{}@{}", registry.reference("a/b"), sha256(&index));
        images.pull(&by_digest, None, |_| {}).await.unwrap();
        assert_eq!(registry.count("/v2/") - before, 2);

        // A removed image's layers stay as long as a container uses them; a restart changes nothing.
        images.remove(&image.id).await.unwrap();
        assert!(images.get(&name).is_none());
        drop(images);
        let images = open(dir.path(), "").await;
        assert_eq!(names(dir.path(), "layers").len(), 2);
        assert_eq!(images.rootfs_ids(), ["c1"]);
        images.release_rootfs("c1").await.unwrap();
        assert_eq!(names(dir.path(), "layers").len() + names(dir.path(), "tmp").len(), 0);
        assert_eq!(images.fs_usage().used_bytes, 0);
    });
}

#[test]
fn registries_are_shown_the_credentials_they_ask_for() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let registry = TestRegistry::start().await;
        registry.add("x", "latest", &two_layers());
        let name = registry.reference("x");
        for guard in [Guard::Basic, Guard::Token] {
            registry.content.lock().guard = guard;
            let images = open(dir.path(), "").await;
            let refused = images.pull(&name, None, |_| {}).await.unwrap_err();
            assert!(matches!(refused, PullError::Unauthorized { .. }), "{refused}");
            assert!(refused.to_string().contains("who are you"), "{refused}");
            images.pull(&name, user(), |_| {}).await.unwrap();
            images.remove(&name).await.unwrap();
            let configured =
                format!("configs: {{'{}': {{auth: {{username: user, password: pass}}}}}}", registry.address);
            drop(images);
            let images = open(dir.path(), &configured).await;
            images.pull(&name, None, |_| {}).await.unwrap();
            images.remove(&name).await.unwrap();
        }
    });
}

#[test]
fn a_redirect_to_another_host_does_not_carry_credentials() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (registry, storage) = (TestRegistry::start().await, TestRegistry::start().await);
        let built = two_layers();
        registry.add("x", "latest", &built);
        storage.add("x", "latest", &built);
        registry.content.lock().guard = Guard::Basic;
        registry.content.lock().blobs_at = Some(storage.address);
        let images = open(dir.path(), "").await;
        images.pull(&registry.reference("x"), user(), |_| {}).await.unwrap();
        let log = std::mem::take(&mut storage.content.lock().log);
        assert!(log.len() >= 3 && log.iter().all(|(_, _, authorization)| authorization.is_none()), "{log:?}");
    });
}

#[test]
fn mirrors_are_asked_first_and_the_registry_when_they_fail() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let mirror = TestRegistry::start().await;
        let built = two_layers();
        mirror.add("hub/library/nginx", "latest", &built);
        let yaml = format!(
            "mirrors: {{docker.io: {{endpoint: ['http://127.0.0.1:1', 'http://{}'], rewrite: {{'^(.*)$': 'hub/$1'}}}}}}",
            mirror.address
        );
        let images = open(dir.path(), &yaml).await;
        let image = images.pull("nginx", user(), |_| {}).await.unwrap();
        assert_eq!(image.repo_tags, ["docker.io/library/nginx:latest"]);
        let log = std::mem::take(&mut mirror.content.lock().log);
        assert!(log.iter().all(|(path, _, authorization)| path.ends_with("?ns=docker.io") && authorization.is_none()));

        let origin = TestRegistry::start().await;
        origin.add("only/here", "latest", &built);
        let yaml = format!("mirrors: {{'*': {{endpoint: ['http://{}']}}}}", mirror.address);
        drop(images);
        let images = open(dir.path(), &yaml).await;
        images.pull(&origin.reference("only/here"), None, |_| {}).await.unwrap();
        let missing = images.pull(&origin.reference("not/here"), None, |_| {}).await.unwrap_err();
        assert!(matches!(missing, PullError::NotFound { .. }), "{missing}");
        let refused = images.pull("127.0.0.1:1/x", None, |_| {}).await.unwrap_err();
        assert!(matches!(refused, PullError::Unavailable { .. }), "{refused}");
        assert!(matches!(images.pull("Nginx", None, |_| {}).await, Err(PullError::InvalidImageName(_))));
    });
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    in_namespace(|| async {
        for no_ranges in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let registry = TestRegistry::start().await;
            let built = two_layers();
            registry.add("x", "latest", &built);
            {
                let mut content = registry.content.lock();
                content.cut_after_bytes = Some(100_000);
                content.failures = 1;
                content.no_ranges = no_ranges;
            }
            let images = open(dir.path(), "").await;
            images.pull(&registry.reference("x"), None, |_| {}).await.unwrap();
            let ranges = registry.content.lock().log.iter().filter(|(_, range, _)| range.is_some()).count();
            assert!(ranges > 0);
        }
    });
}

#[test]
fn a_wrong_blob_is_refused_and_leaves_nothing() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let registry = TestRegistry::start().await;
        let built = two_layers();
        registry.add("x", "latest", &built);
        let victim = built.layer_digests[1].clone();
        let path = format!("x/blobs/{victim}");
        registry.content.lock().paths.get_mut(&path).unwrap()[1000] ^= 1;
        let images = open(dir.path(), "").await;
        let error = images.pull(&registry.reference("x"), None, |_| {}).await.unwrap_err();
        let text = chain_text(&error);
        assert!(
            text.starts_with(&format!("layer {victim}: digest mismatch: expected {victim}, got sha256:")),
            "{text}"
        );
        assert!(images.list().is_empty());
        settled(&images).await;
        assert_eq!(names(dir.path(), "tmp"), Vec::<String>::new());

        // The same with a layer that is not what the configuration says.
        let tar = Layer::default().file("a", "b").tar();
        let lying = image(&[(gzip(&Layer::default().file("a", "c").tar()), &tar)], false);
        registry.add("y", "latest", &lying);
        let text = chain_text(&images.pull(&registry.reference("y"), None, |_| {}).await.unwrap_err());
        assert!(text.contains(&format!("expected {}", sha256(&tar))), "{text}");
        // And with a manifest.
        let wanted = format!("{}@{}", registry.reference("x"), sha256(b"wanted"));
        registry.content.lock().paths.insert(format!("x/manifests/{}", sha256(b"wanted")), built.manifest.clone());
        let error = images.pull(&wanted, None, |_| {}).await.unwrap_err();
        assert!(matches!(error, PullError::DigestMismatch { .. }), "{error}");
    });
}

/// Jobs of failed pulls end by themselves.
async fn settled(images: &Images) {
    for _ in 0..100 {
        if names(&images.state.config.dir, "tmp").is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[test]
fn pulls_of_one_layer_share_its_download_and_an_abandoned_pull_leaves_nothing() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let registry = TestRegistry::start().await;
        let built = two_layers();
        registry.add("x", "latest", &built);
        registry.add("y", "latest", &built);
        let images = open(dir.path(), "").await;
        let (x, y) = (registry.reference("x"), registry.reference("y"));
        let (first, second) = tokio::join!(images.pull(&x, None, |_| {}), images.pull(&y, None, |_| {}));
        assert_eq!(first.unwrap().id, second.unwrap().id);
        assert_eq!(registry.count(&built.layer_digests[1]), 1);
        assert_eq!(images.get(&built.id()).unwrap().repo_tags.len(), 2);
        images.remove(&x).await.unwrap();
        assert_eq!(images.list().len(), 0);

        registry.content.lock().cut_after_bytes = Some(70_000);
        let pull = images.pull(&x, None, |_| {});
        let abandoned = tokio::time::timeout(std::time::Duration::from_millis(150), pull).await;
        assert!(abandoned.is_err());
        settled(&images).await;
        assert_eq!(names(dir.path(), "tmp"), Vec::<String>::new());
    });
}

#[test]
fn a_bomb_is_refused() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let registry = TestRegistry::start().await;
        let tar = Layer::default().file("zeros", &"\0".repeat(4 << 20)).tar();
        registry.add("x", "latest", &image(&[(gzip(&tar), &tar)], false));
        let config = crate::ImagesConfig { image_unpacked_bytes_max: 1 << 20, ..crate::ImagesConfig::new(dir.path()) };
        let images = Images::open(config).await.unwrap();
        let text = chain_text(&images.pull(&registry.reference("x"), None, |_| {}).await.unwrap_err());
        assert!(text.contains("unpacks to more than the 1048576 bytes"), "{text}");
        assert!(names(dir.path(), "layers").is_empty());
    });
}

#[test]
fn a_tag_that_moves_leaves_the_former_image_without_it() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let registry = TestRegistry::start().await;
        let first = two_layers();
        let tar = Layer::default().file("new", "").tar();
        let second = image(&[(tar.clone(), &tar)], false);
        let images = open(dir.path(), "").await;
        let name = registry.reference("x:t");
        registry.add("x", "t", &first);
        images.pull(&name, None, |_| {}).await.unwrap();
        registry.add("x", "t", &second);
        images.pull(&name, None, |_| {}).await.unwrap();
        drop(images);
        let images = open(dir.path(), "").await;
        assert_eq!(images.get(&name).unwrap().id, second.id());
        assert!(images.get(&first.id()).unwrap().repo_tags.is_empty());
        images.remove(&second.id()).await.unwrap();
        drop(images);
        assert!(open(dir.path(), "").await.get(&name).is_none());
        let images = open(dir.path(), "").await;
        assert!(matches!(images.prepare_rootfs(&name, "c").await, Err(Error::ImageNotFound(_))));
    });
}

#[test]
fn a_mirror_over_tls_with_client_certificates() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        // One certificate for all: the server's own, its authority, and the client's.
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        // Made by the same authority, for the client.
        let client_key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::from_params(&params, &key);
        let client = rcgen::CertificateParams::new(vec!["node".to_owned()]).unwrap().signed_by(&client_key, &issuer);
        for (name, pem) in
            [("ca", certificate.pem()), ("cert", client.unwrap().pem()), ("key", client_key.serialize_pem())]
        {
            std::fs::write(dir.path().join(name), pem).unwrap();
        }
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let registry = TestRegistry::start_with(Some(server)).await;
        registry.add("x", "latest", &two_layers());
        let yaml = |tls: &str| {
            let address = registry.address;
            let tls = tls.replace("DIR", dir.path().to_str().unwrap());
            format!(
                "mirrors: {{r.test: {{endpoint: ['https://{address}']}}}}\nconfigs: {{'{address}': {{tls: {tls}}}}}"
            )
        };
        for (tls, works) in [
            ("{insecure_skip_verify: true}", false),
            ("{cert_file: DIR/cert, key_file: DIR/key}", false),
            ("{ca_file: DIR/ca, cert_file: DIR/cert, key_file: DIR/key}", true),
            ("{insecure_skip_verify: true, cert_file: DIR/cert, key_file: DIR/key}", true),
        ] {
            let store = tempfile::tempdir().unwrap();
            let images = open(store.path(), &yaml(tls)).await;
            // Only the mirror's part matters: the registry's own name resolves to nothing here.
            let pull = tokio::time::timeout(std::time::Duration::from_secs(1), images.pull("r.test/x", None, |_| {}));
            assert_eq!(matches!(pull.await, Ok(Ok(_))), works, "{tls}");
        }
    });
}

#[test]
fn a_disk_that_fills_up_is_named_and_nothing_is_left() {
    in_namespace(|| async {
        use nix::mount::{MsFlags, mount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=66m")).unwrap();
        let registry = TestRegistry::start().await;
        let tar = Layer::default().file("zeros", &"\0".repeat(6 << 20)).tar();
        registry.add("x", "latest", &image(&[(gzip(&tar), &tar)], false));
        let images = open(dir.path(), "").await;
        let text = chain_text(&images.pull(&registry.reference("x"), None, |_| {}).await.unwrap_err());
        assert!(text.contains("no space left on device"), "{text}");
        settled(&images).await;
        assert!(names(dir.path(), "tmp").is_empty() && names(dir.path(), "layers").is_empty());
        drop(images);
        nix::mount::umount(dir.path()).unwrap();
    });
}
