//! Who asks: the subject of the client's certificate, which TLS has verified.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The user name of the API server's certificate for kubelets.
const APISERVER: &str = "kube-apiserver-kubelet-client";
const MASTERS: &str = "system:masters";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub groups: Vec<String>,
}

impl Identity {
    /// May use everything here.
    pub fn is_allowed(&self) -> bool {
        self.user == APISERVER || self.groups.iter().any(|group| group == MASTERS)
    }
}

/// `CN` is the user, `O` the groups.
pub fn of(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|one| one.as_str().ok()).map(str::to_owned).collect();
    Some(Identity { user, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_api_server_and_administrators_get_in() {
        let who = |user: &str, groups: &[&str]| Identity {
            user: user.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
        };
        assert!(who("admin", &["system:masters"]).is_allowed());
        assert!(who("kube-apiserver-kubelet-client", &[]).is_allowed());
        assert!(!who("system:node:a", &["system:nodes"]).is_allowed());
    }

    #[test]
    fn garbage_is_nobody() {
        assert_eq!(of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
