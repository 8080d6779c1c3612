//! Image references, normalised as Docker and containerd do.

use std::fmt;

use crate::chain::is_sha256;

const DOCKER_HUB: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest name, as the distribution specification allows it.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// A reference in full: `docker.io/library/nginx:latest`, `registry:5000/a/b@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host and port as written, `docker.io` for Docker Hub.
    pub domain: String,
    /// `library/nginx`.
    pub path: String,
    /// Set unless the reference has a digest and no tag.
    pub tag: Option<String>,
    pub digest: Option<String>,
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image name {name:?}: {reason}")]
pub struct InvalidReference {
    pub name: String,
    pub reason: &'static str,
}

impl Reference {
    /// Parses and completes a reference: no domain means Docker Hub, a Docker Hub name without a slash means
    /// `library/`, neither tag nor digest means `latest`.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let fail = |reason| InvalidReference { name: text.chars().take(300).collect(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_sha256(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(fail("the digest is not sha256: and 64 lower-case hexadecimal digits")),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(fail("the tag may have letters, digits, '_', '.' and '-', at most 128"));
        }
        let (domain, path) = match name.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                (first, path)
            }
            _ => (DOCKER_HUB, name),
        };
        let domain = if domain == "index.docker.io" { DOCKER_HUB } else { domain };
        let path =
            if domain == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        if !is_domain(domain) {
            return Err(fail("the registry is not host or host:port"));
        }
        if name.is_empty() || !path.split('/').all(is_path_component) {
            return Err(fail(
                "repository names are lower-case letters and digits, joined by '.', '_', '__', '-' or '/'",
            ));
        }
        if domain.len() + 1 + path.len() > NAME_BYTES_MAX {
            return Err(fail("repository names have at most 255 characters"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }

    /// Domain and path: `docker.io/library/nginx`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// What the registry is asked for: the digest when there is one, else the tag.
    pub fn selector(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    /// The name that the image is tagged with, if it is to be tagged. Upstream keeps no tag for a reference that has a
    /// digest, since nobody asked the registry what the tag means.
    pub fn repo_tag(&self) -> Option<String> {
        match (&self.tag, &self.digest) {
            (Some(tag), None) => Some(format!("{}:{tag}", self.repository())),
            _ => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= TAG_BYTES_MAX
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Lower-case letters and digits with single separators between them: `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().copied().is_some_and(alphanumeric) || !bytes.last().copied().is_some_and(alphanumeric) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (given, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("grafana/loki", "docker.io/grafana/loki:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("registry.k8s.io/e2e/agnhost:2.53", "registry.k8s.io/e2e/agnhost:2.53"),
            ("[::1]:5000/x:y", "[::1]:5000/x:y"),
            ("Host/x", "Host/x:latest"),
            ("a__b/c-----d", "docker.io/a__b/c-----d:latest"),
            (&format!("nginx@{digest}"), &format!("docker.io/library/nginx@{digest}")),
            (&format!("nginx:1@{digest}"), &format!("docker.io/library/nginx:1@{digest}")),
        ] {
            assert_eq!(Reference::parse(given).unwrap().to_string(), full, "{given}");
        }
    }

    #[test]
    fn what_names_no_image_is_refused_with_a_reason() {
        for bad in [
            "",
            ":",
            "/",
            "nginx:",
            "Nginx",
            "a//b",
            "a/../b",
            "nginx:-x",
            "nginx@sha256:12",
            "nginx@md5:aa",
            "a___b",
            "a..b",
            "-a",
            "x.y:port/a",
            "x.y:99999/a",
            "http://x/y",
            " nginx",
            "nginx\n",
            "[::1/x",
            "a:b:c",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?} is {:?}", Reference::parse(bad));
        }
        let long = format!("x.y/{}", "a".repeat(256));
        assert!(Reference::parse(&long).unwrap_err().to_string().contains("at most 255"));
    }

    #[test]
    fn a_tag_beside_a_digest_is_not_kept() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(Reference::parse(&format!("nginx:1@{digest}")).unwrap().repo_tag(), None);
        assert_eq!(Reference::parse("nginx:1").unwrap().repo_tag().unwrap(), "docker.io/library/nginx:1");
    }

    proptest! {
        #[test]
        fn a_full_reference_parses_to_itself(text in "\\PC{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
            }
        }
    }
}
