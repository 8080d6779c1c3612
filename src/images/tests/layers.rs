//! What becomes of a layer's entries, and what does not.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::build::Layer;
use crate::chain::sha256;
use crate::error::{LayerError, chain_text};
use crate::unpack::{Budget, unpack};

fn unpacked(layer: Layer, root: &Path) -> Result<(), LayerError> {
    let tar = layer.tar();
    unpack(tar.as_slice(), None, &sha256(&tar), root, &Budget::new(1 << 20)).map(drop)
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 100];
    let count = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(count);
    Some(value)
}

#[test]
fn entries_keep_what_they_are() {
    let root = tempfile::tempdir().unwrap();
    let long = format!("d/{}", "n".repeat(200));
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Layer::default()
        .dir("d", 0o2750)
        .pax(&[("path", long.as_bytes()), ("mtime", b"5.5")])
        .file("x", "long")
        .entry(tar::EntryType::Regular, "d/suid", "", 0o4755, b"s")
        .hard_link("d/same", "/d/suid")
        .symlink("d/abs", "/etc/passwd")
        .entry(tar::EntryType::Char, "null", "", 0o666, b"")
        .entry(tar::EntryType::Fifo, "pipe", "", 0o600, b"")
        .pax(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.trusted.overlay.redirect", b"/x")])
        .file("ping", "p")
        .file("twice", "first")
        .file("twice", "second");
    unpacked(layer, root.path()).unwrap();
    let stat = |name: &str| std::fs::symlink_metadata(root.path().join(name)).unwrap();
    assert_eq!((stat(&long).mtime(), stat(&long).mtime_nsec()), (5, 500_000_000));
    assert_eq!((stat("d").mode() & 0o7777, stat("d").uid(), stat("d").gid()), (0o2750, 1, 2));
    assert_eq!(stat("d").mtime(), 1_000_000_000);
    assert_eq!(stat("d/suid").mode() & 0o7777, 0o4755);
    assert_eq!(stat("d/suid").ino(), stat("d/same").ino());
    assert_eq!(std::fs::read_link(root.path().join("d/abs")).unwrap(), Path::new("/etc/passwd"));
    assert!(stat("null").file_type().is_char_device() && stat("null").rdev() == rustix::fs::makedev(1, 3));
    assert!(stat("pipe").file_type().is_fifo());
    assert_eq!(attribute(&root.path().join("ping"), "security.capability").unwrap(), capability);
    assert_eq!(attribute(&root.path().join("ping"), "trusted.overlay.redirect"), None);
    assert_eq!(std::fs::read(root.path().join("twice")).unwrap(), b"second");
}

#[test]
fn whiteouts_become_overlayfs_own() {
    let root = tempfile::tempdir().unwrap();
    let layer = Layer::default()
        .file("d/.wh.gone", "")
        .file("o/.wh..wh..opq", "")
        .file("o/new", "")
        .file(".wh.replaced", "")
        .dir("replaced", 0o755)
        .file("kept", "k")
        .file(".wh.kept", "")
        .file(".wh..wh.plnk/1.2", "");
    unpacked(layer, root.path()).unwrap();
    let path = |name: &str| root.path().join(name);
    let gone = std::fs::symlink_metadata(path("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(attribute(&path("o"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(attribute(&path("replaced"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(std::fs::read(path("kept")).unwrap(), b"k");
    assert!(!path(".wh..wh..opq").exists());
}

#[test]
fn no_entry_leads_out_of_the_layer() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "s").unwrap();
    let out = outside.path().to_str().unwrap();
    let attacks: Vec<(&str, Layer)> = vec![
        ("dots", Layer::default().file("../escaped", "x")),
        ("inner dots", Layer::default().file("a/../../escaped", "x")),
        ("whiteout of dots", Layer::default().file("a/.wh...", "")),
        ("hard link out", Layer::default().hard_link("stolen", &format!("../../../../../..{}", secret.display()))),
        ("hard link to an absolute path", Layer::default().hard_link("stolen", secret.to_str().unwrap())),
        ("hard link through a link", Layer::default().symlink("l", out).hard_link("stolen", "l/secret")),
        ("root as a file", Layer::default().symlink("./", "/etc")),
        ("file below a file", Layer::default().file("f", "").file("f/g", "")),
    ];
    for (name, layer) in attacks {
        let root = tempfile::tempdir_in(outside.path()).unwrap();
        let error = unpacked(layer, root.path()).unwrap_err();
        assert!(matches!(error, LayerError::Entry { .. }), "{name}: {}", chain_text(&error));
        assert!(!root.path().join("stolen").exists(), "{name}");
    }
    // Links are followed as if the layer were the whole world.
    for target in [out, "../../../../../../../.."] {
        let root = tempfile::tempdir_in(outside.path()).unwrap();
        let escape = format!("{}/escaped", if target == out { "l" } else { "l/tmp" });
        let layer = Layer::default().symlink("l", target).file(&escape, "x");
        // An absolute target is missing in the layer: refused. A relative one ends at the layer's root.
        let result = unpacked(layer, root.path());
        assert_eq!(result.is_err(), target == out, "{target}");
        assert!(!outside.path().join("escaped").exists() && !Path::new("/tmp/escaped").exists());
    }
    assert!(std::fs::read_dir(outside.path()).unwrap().all(|entry| entry.unwrap().file_name() != "escaped"));
    // The last component is replaced, not followed.
    let root = tempfile::tempdir().unwrap();
    let over = Layer::default().symlink("s", secret.to_str().unwrap()).file("s", "overwritten");
    unpacked(over, root.path()).unwrap();
    assert_eq!(std::fs::read(&secret).unwrap(), b"s");
    assert_eq!(std::fs::metadata(&secret).unwrap().uid(), 0);
}

#[test]
fn a_truncated_archive_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut tar = Layer::default().file("a", &"x".repeat(2000)).tar();
    tar.truncate(1500);
    let error = unpack(tar.as_slice(), None, &sha256(&tar), root.path(), &Budget::new(1 << 20)).unwrap_err();
    assert!(chain_text(&error).contains("ends inside an entry"), "{}", chain_text(&error));
}
