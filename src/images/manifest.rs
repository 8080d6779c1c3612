//! Manifests and indexes of Docker and OCI, as far as a pull needs them.

use serde::Deserialize;

/// Sent as `Accept`.
pub(crate) const MEDIA_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";
/// More layers than this has no image that overlayfs can mount.
pub(crate) const LAYERS_MAX: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Descriptor {
    #[serde(default, rename = "mediaType")]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Manifest {
    Image { config: Descriptor, layers: Vec<Descriptor> },
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default, rename = "schemaVersion")]
    schema_version: u32,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// Told apart by what they hold; media types are optional in OCI.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        let raw: Raw = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if raw.schema_version == 1 {
            return Err("schema 1 manifests are not supported".to_owned());
        }
        let descriptors = raw.config.iter().chain(raw.layers.iter().flatten()).chain(raw.manifests.iter().flatten());
        for descriptor in descriptors {
            if !crate::chain::is_sha256(&descriptor.digest) {
                return Err(format!("digest {:?} is not sha256", descriptor.digest));
            }
        }
        match (raw.config, raw.layers, raw.manifests) {
            (Some(_), Some(layers), None) if layers.len() > LAYERS_MAX => Err(format!("more than {LAYERS_MAX} layers")),
            (Some(config), Some(layers), None) => Ok(Self::Image { config, layers }),
            (None, None, Some(manifests)) => Ok(Self::Index(manifests)),
            _ => Err("neither an image's manifest nor an index".to_owned()),
        }
    }
}

impl Platform {
    /// The machine we run on.
    pub(crate) fn here() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", ""),
            other => (other, ""),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// The image for this machine: the same variant first, then the highest lower one. Entries without a platform
    /// count last.
    pub(crate) fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Option<&'a Descriptor> {
        manifests
            .iter()
            .filter_map(|descriptor| Some((self.rank(descriptor.platform.as_ref())?, descriptor)))
            // The first of equals, as upstream.
            .rev()
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, descriptor)| descriptor)
    }

    fn rank(&self, platform: Option<&Platform>) -> Option<u32> {
        let Some(platform) = platform else { return Some(0) };
        if platform.os != self.os || platform.architecture != self.architecture {
            return None;
        }
        let number = |variant: &str| variant.strip_prefix('v').and_then(|digits| digits.parse::<u32>().ok());
        let default = match self.architecture.as_str() {
            "arm" => 7,
            "arm64" => 8,
            "amd64" => 1,
            _ => 0,
        };
        let theirs = if platform.variant.is_empty() { default } else { number(&platform.variant)? };
        let ours = if self.variant.is_empty() { default } else { number(&self.variant)? };
        (theirs <= ours).then_some(1 + theirs)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: char, os: &str, architecture: &str, variant: &str) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest: format!("sha256:{}", name.to_string().repeat(64)),
            size: 1,
            platform: Some(Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() }),
            annotations: None,
        }
    }

    #[test]
    fn the_best_variant_that_runs_here_is_chosen() {
        let entries = [
            entry('a', "linux", "arm", "v6"),
            entry('b', "linux", "arm", "v7"),
            entry('c', "linux", "arm64", ""),
            entry('d', "windows", "amd64", ""),
            entry('e', "linux", "amd64", ""),
            entry('f', "linux", "amd64", "v3"),
            entry('0', "unknown", "unknown", ""),
        ];
        let choose = |architecture: &str, variant: &str| {
            let platform = Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.into() };
            platform.choose(&entries).map(|descriptor| descriptor.digest.as_bytes()[7] as char)
        };
        assert_eq!(choose("arm", "v7"), Some('b'));
        assert_eq!(choose("arm", "v6"), Some('a'));
        assert_eq!(choose("arm", "v5"), None);
        assert_eq!(choose("arm64", "v8"), Some('c'));
        assert_eq!(choose("amd64", ""), Some('e'));
        assert_eq!(choose("riscv64", ""), None);
    }

    #[test]
    fn manifests_are_told_apart_by_what_they_hold() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let image = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":1}},"layers":[]}}"#);
        assert!(matches!(Manifest::parse(image.as_bytes()), Ok(Manifest::Image { .. })));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":1}}]}}"#);
        assert!(matches!(Manifest::parse(index.as_bytes()), Ok(Manifest::Index(_))));
        for bad in [
            "{}",
            "[]",
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:../..","size":1}]}"#,
        ] {
            assert!(Manifest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
