//! The keys of a cluster: its certificate authority, the key that signs ServiceAccount tokens, the join token, and the
//! administrator's kubeconfig. Other certificates are made anew at every start and live in memory only.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use base64::Engine;
use pki::{Authority, Issued, Live, Profile, Requested, Role, Token, Usage};

use crate::options::PathOptions;

/// Everything that a server signs and checks with.
pub struct Keys {
    pub authority: Arc<Authority>,
    /// Signs what the API server shows to aggregated API servers; whoever holds such a certificate may name any user
    /// to them, so it is no certificate of the cluster's own authority.
    pub front_proxy: Arc<Authority>,
    /// Signs who may use the etcd API, which is everything; so it signs nobody else.
    pub etcd: Arc<Authority>,
    /// PKCS#8 PEM.
    pub service_account_key: String,
    pub token: Token,
}

impl Keys {
    /// Reads the keys, or makes them at the first start. `secret` is what `--token` says.
    pub fn load_or_create(paths: &PathOptions, secret: Option<&str>) -> anyhow::Result<Keys> {
        let tls = paths.tls();
        let authority = Authority::load_or_create(&tls, "ca", "cluster-ca")?;
        let front_proxy = Authority::load_or_create(&tls, "front-proxy-ca", "cluster-front-proxy-ca")?;
        let etcd = Authority::load_or_create(&tls, "etcd-ca", "cluster-etcd-ca")?;
        let key_path = tls.join("service-account.key");
        let service_account_key = match pki::read_secret(&key_path)? {
            Some(key) => key,
            None => {
                let key = pki::new_signing_key()?;
                pki::write_secret(&key_path, &key)?;
                key
            }
        };
        let token_path = token_path(paths);
        let known = pki::read_secret(&token_path)?.map(|text| Token::parse(&text)).transpose()?;
        let token = match (secret, known) {
            (Some(secret), _) => {
                let given = Token::parse(secret).context("--token")?;
                given.check_authority(authority.cert_pem().as_bytes()).context("--token")?;
                Token { ca_hash: Some(authority.hash()), role: Role::Node, secret: given.secret }
            }
            (None, Some(known)) => known,
            (None, None) => Token::new(Role::Node, authority.hash()),
        };
        let text = format!("{token}\n");
        if pki::read_secret(&token_path)?.as_deref() != Some(&text) {
            pki::write_secret(&token_path, &text)?;
        }
        Ok(Keys {
            authority: Arc::new(authority),
            front_proxy: Arc::new(front_proxy),
            etcd: Arc::new(etcd),
            service_account_key,
            token,
        })
    }

    /// A number that is this cluster's on all its servers.
    pub fn cluster_id(&self) -> u64 {
        let hash = self.authority.hash();
        hash.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(1)
    }

    /// Writes the administrator's kubeconfig unless the one that is there still serves.
    pub fn write_kubeconfig(&self, path: &Path, server: &str) -> anyhow::Result<()> {
        let known = pki::read_secret(path)?;
        let ca = base64::engine::general_purpose::STANDARD.encode(self.authority.cert_pem());
        if known
            .is_some_and(|text| text.contains(&ca) && text.contains(&format!("server: {server}\n")) && is_fresh(&text))
        {
            return Ok(());
        }
        let admin = self.authority.issue(&Profile::client("kubernetes-admin", &["system:masters"]))?;
        Ok(pki::write_secret(path, &kubeconfig(server, &ca, &admin))?)
    }
}

/// The files that a cluster's keys and certificates are in.
pub fn files(paths: &PathOptions) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = vec![token_path(paths)];
    let tls = paths.tls();
    for entry in std::fs::read_dir(&tls).with_context(|| format!("cannot list {}", tls.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// The hash of the authority of the cluster whose server this machine is.
pub fn cluster(paths: &PathOptions) -> anyhow::Result<String> {
    let path = paths.tls().join("ca.crt");
    let bundle = pki::read_secret(&path)?.with_context(|| {
        format!("{} is missing: has `cluster server` run here with this --data-dir?", path.display())
    })?;
    Ok(pki::ca_hash(bundle.as_bytes()))
}

/// Where the join token is kept.
pub fn token_path(paths: &PathOptions) -> PathBuf {
    paths.server().join("token")
}

/// The API server's names and addresses, for its certificate.
pub fn serving_profile(names: &[String], addresses: &[IpAddr], domain: &str) -> Profile {
    let mut dns_names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec();
    dns_names.push(format!("kubernetes.default.svc.{domain}"));
    let mut all = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    all.extend(addresses);
    for name in names {
        match name.parse() {
            Ok(address) => all.push(address),
            Err(_) => dns_names.push(name.clone()),
        }
    }
    all.sort();
    all.dedup();
    dns_names.sort();
    dns_names.dedup();
    Profile::server("kube-apiserver", dns_names, all)
}

/// The authority, as the certificate controller sees it.
pub struct AuthoritySigner(pub Arc<Authority>);

impl controllers::Signer for AuthoritySigner {
    fn read(&self, request_pem: &str) -> Result<controllers::Subject, String> {
        let asked = Requested::parse(request_pem).map_err(|error| error.to_string())?;
        Ok(controllers::Subject {
            common_name: asked.common_name,
            organizations: asked.organizations,
            dns_names: asked.dns_names,
            addresses: asked.addresses,
            other_names: asked.other_names,
        })
    }

    fn sign(&self, request_pem: &str, subject: &controllers::Subject, serving: bool) -> Result<String, String> {
        let profile = Profile {
            common_name: subject.common_name.clone(),
            organizations: subject.organizations.clone(),
            dns_names: subject.dns_names.clone(),
            addresses: subject.addresses.clone(),
            usage: if serving { Usage::Server } else { Usage::Client },
        };
        self.0.sign(request_pem, &profile).map_err(|error| error.to_string())
    }
}

fn kubeconfig(server: &str, ca: &str, admin: &Issued) -> String {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: default\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {ca}\nusers:\n- name: default\n  user:\n    client-certificate-data: {}\n    \
         client-key-data: {}\ncontexts:\n- name: default\n  context:\n    cluster: default\n    user: default\n\
         current-context: default\n",
        encode(&admin.cert_pem),
        encode(&admin.key_pem),
    )
}

/// True if the certificate in a kubeconfig of ours has more than a third of its life left.
fn is_fresh(kubeconfig: &str) -> bool {
    let field = |name: &str| {
        let line = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(name))?;
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(line.trim()).ok()?).ok()
    };
    let (Some(cert_pem), Some(key_pem)) = (field("client-certificate-data:"), field("client-key-data:")) else {
        return false;
    };
    Live::new(&Issued { cert_pem, key_pem }).is_ok_and(|live| !live.is_due())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> (tempfile::TempDir, PathOptions) {
        let dir = tempfile::tempdir().unwrap();
        let paths = PathOptions { data_dir: dir.path().join("data"), run_dir: dir.path().join("run") };
        (dir, paths)
    }

    #[test]
    fn a_second_start_changes_nothing() {
        let (dir, paths) = paths();
        let config = dir.path().join("kubeconfig.yaml");
        let first = Keys::load_or_create(&paths, None).unwrap();
        first.write_kubeconfig(&config, "https://127.0.0.1:6443").unwrap();
        let text = std::fs::read_to_string(&config).unwrap();
        let second = Keys::load_or_create(&paths, None).unwrap();
        second.write_kubeconfig(&config, "https://127.0.0.1:6443").unwrap();
        assert_eq!(first.token, second.token);
        assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
        second.write_kubeconfig(&config, "https://127.0.0.1:7443").unwrap();
        assert_ne!(std::fs::read_to_string(&config).unwrap(), text);
    }

    #[test]
    fn a_token_of_another_cluster_is_refused() {
        let (_dir, paths) = paths();
        let ours = Keys::load_or_create(&paths, Some("secret")).unwrap();
        assert_eq!(ours.token.secret, "secret");
        let other = Token::new(Role::Node, "0".repeat(64)).to_string();
        assert!(Keys::load_or_create(&paths, Some(&other)).is_err());
    }
}
