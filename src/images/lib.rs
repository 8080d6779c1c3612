//! OCI images: registries, content, unpacked layers, snapshots.
