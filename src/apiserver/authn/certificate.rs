//! Users by client certificate.
//!
//! The handshake takes any certificate whose key the peer has; whether an authority of ours signed it is decided
//! afterwards, so that a stale certificate gets a 401 that clients understand and not a broken handshake. The chain is
//! verified once for a connection; how long it is good for is looked at with each request, since connections outlive
//! certificates.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::identity::Identity;

/// Certificates in a chain that are looked at.
const INTERMEDIATES_MAX: usize = 8;

/// Asks for a client certificate and takes any.
#[derive(Debug)]
pub struct AnyClientCertificate(Arc<dyn ClientCertVerifier>);

/// Decides whose certificate it is.
pub struct CertificateAuthenticator {
    users: Arc<dyn ClientCertVerifier>,
    /// The front proxy's authority, and the names that it may have; none means any.
    proxies: Option<(Arc<dyn ClientCertVerifier>, Vec<String>)>,
}

/// What the connection says about its peer. Clones are cheap.
#[derive(Clone, Default)]
pub struct Peer(Option<Arc<Shown>>);

struct Shown {
    user: Result<Option<Arc<Identity>>, String>,
    proxy: Result<(), String>,
    /// The last second in which all certificates of the chain are good.
    until_seconds: i64,
}

/// The authorities in a file, added to others.
pub fn authorities(path: &Path, mut roots: RootCertStore) -> Result<Arc<RootCertStore>, crate::Error> {
    let refused = |reason: String| crate::Error::File { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    if roots.len() == before {
        return Err(refused("data does not contain any valid certificates".to_owned()));
    }
    Ok(Arc::new(roots))
}

/// A verifier for both that trusts `authorities`.
fn verifier(authorities: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, crate::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(authorities, provider).allow_unauthenticated();
    Ok(builder.build()?)
}

impl AnyClientCertificate {
    pub fn new(authorities: Arc<RootCertStore>) -> Result<AnyClientCertificate, crate::Error> {
        Ok(AnyClientCertificate(verifier(authorities)?))
    }
}

impl ClientCertVerifier for AnyClientCertificate {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

impl CertificateAuthenticator {
    /// `front_proxy` is the authority of front proxies and the names that they may have.
    pub fn new(
        authorities: Arc<RootCertStore>,
        front_proxy: Option<(Arc<RootCertStore>, Vec<String>)>,
    ) -> Result<CertificateAuthenticator, crate::Error> {
        let proxies = match front_proxy {
            Some((authorities, names)) => Some((verifier(authorities)?, names)),
            None => None,
        };
        Ok(CertificateAuthenticator { users: verifier(authorities)?, proxies })
    }

    /// Who the peer is by the certificates that it showed.
    pub fn peer(&self, shown: Option<&[CertificateDer<'_>]>) -> Peer {
        let Some((leaf, rest)) = shown.and_then(|chain| chain.split_first()) else { return Peer::default() };
        Peer(Some(Arc::new(self.look_at(leaf, rest))))
    }

    fn look_at(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Shown {
        let refused = |why: &str| Shown { user: Err(why.to_owned()), proxy: Err(why.to_owned()), until_seconds: 0 };
        if rest.len() > INTERMEDIATES_MAX {
            return refused("the chain of certificates is too long");
        }
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
            return refused("the certificate is malformed");
        };
        let verify = |verifier: &Arc<dyn ClientCertVerifier>| {
            let verified = verifier.verify_client_cert(leaf, rest, UnixTime::now());
            let serial = certificate.raw_serial_as_string();
            verified.map(drop).map_err(|error| format!("verifying certificate SN={serial} failed: {error}"))
        };
        let proxy = match &self.proxies {
            None => Err("there is no front proxy".to_owned()),
            Some((verifier, names)) => verify(verifier).and_then(|()| {
                let name = common_name(certificate.subject()).unwrap_or_default();
                if names.is_empty() || names.iter().any(|one| one == name) {
                    return Ok(());
                }
                Err(format!("x509: subject with cn={name} is not in the allowed list"))
            }),
        };
        let user = verify(&self.users).and_then(|()| identity(leaf, certificate.subject()));
        let ends = rest.iter().filter_map(|der| X509Certificate::from_der(der).ok()).map(|(_, one)| not_after(&one));
        let until_seconds = ends.fold(not_after(&certificate), i64::min);
        Shown { user: user.map(|user| user.map(Arc::new)), proxy, until_seconds }
    }
}

impl Peer {
    /// Somebody who has shown a certificate, for tests without TLS.
    #[cfg(test)]
    pub fn known(user: Identity) -> Peer {
        let user = Ok(Some(Arc::new(user)));
        Peer(Some(Arc::new(Shown { user, proxy: Err(String::new()), until_seconds: i64::MAX })))
    }

    /// The user whom the certificate names: `None` without certificate or without a name in it.
    pub fn user(&self, now_seconds: i64) -> Result<Option<Arc<Identity>>, String> {
        match &self.0 {
            Some(shown) => shown.good(now_seconds, || shown.user.clone()),
            None => Ok(None),
        }
    }

    /// For how long the certificate is good yet; nothing without one.
    pub fn remaining_seconds(&self, now_seconds: i64) -> i64 {
        self.0.as_ref().map_or(0, |shown| shown.until_seconds.saturating_sub(now_seconds))
    }

    /// True if the peer is a front proxy, and `false` without certificate.
    pub fn is_front_proxy(&self, now_seconds: i64) -> Result<bool, String> {
        match &self.0 {
            Some(shown) => shown.good(now_seconds, || shown.proxy.clone().map(|()| true)),
            None => Ok(false),
        }
    }
}

impl Shown {
    fn good<T>(&self, now_seconds: i64, then: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let outcome = then()?;
        if self.until_seconds < now_seconds {
            return Err("x509: certificate has expired or is not yet valid".to_owned());
        }
        Ok(outcome)
    }
}

fn not_after(certificate: &X509Certificate<'_>) -> i64 {
    certificate.validity().not_after.timestamp()
}

/// The last common name, as Go reads subjects.
fn common_name<'a>(subject: &'a X509Name<'_>) -> Option<&'a str> {
    subject.iter_common_name().last()?.as_str().ok()
}

/// The user is the common name, the groups are the organisations (upstream: `CommonNameUserConversion`).
fn identity(leaf: &CertificateDer<'_>, subject: &X509Name<'_>) -> Result<Option<Identity>, String> {
    const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
    let Some(name) = common_name(subject).filter(|name| !name.is_empty()) else { return Ok(None) };
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned);
    let id = format!("X509SHA256={}", hex::encode(Sha256::digest(leaf)));
    let identity = Identity {
        name: name.to_owned(),
        uid: uid(subject)?,
        groups: groups.collect(),
        extra: [(CREDENTIAL_ID.to_owned(), vec![id])].into(),
    };
    Ok(Some(identity.authenticated()))
}

/// The uid in a subject, under Kubernetes' own object identifier.
fn uid(subject: &X509Name<'_>) -> Result<String, String> {
    const UID: [u64; 8] = [1, 3, 6, 1, 4, 1, 57683, 2];
    let oid = Oid::from(&UID).map_err(|_| "the uid's identifier".to_owned())?;
    let mut found = subject.iter_by_oid(&oid);
    let Some(uid) = found.next() else { return Ok(String::new()) };
    let uid = uid.as_str().map_err(|_| "unable to parse UID into a string".to_owned())?;
    match (uid, found.next()) {
        (_, Some(_)) => Err("expected 1 UID, but found multiple".to_owned()),
        ("", None) => Err("UID cannot be an empty string".to_owned()),
        (uid, None) => Ok(uid.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::{Authority, Profile};

    fn roots(authority: &Authority) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.cert_pem().as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }

    fn shown(authority: &Authority, profile: &Profile) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(authority.issue(profile).unwrap().cert_pem.as_bytes()).unwrap()]
    }

    #[test]
    fn a_certificate_names_user_and_groups_while_it_is_good() {
        let (ours, others) = (Authority::create("ours").unwrap(), Authority::create("others").unwrap());
        let authenticator = CertificateAuthenticator::new(roots(&ours), None).unwrap();
        let chain = shown(&ours, &Profile::client("alice", &["dev"]));
        let peer = authenticator.peer(Some(&chain));
        let now = jiff::Timestamp::now().as_second();
        let user = peer.user(now).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.groups.join(",")), ("alice", "dev,system:authenticated".to_owned()));
        let id = format!("X509SHA256={}", hex::encode(Sha256::digest(&chain[0])));
        assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], [id]);
        assert_eq!(peer.is_front_proxy(now), Err("there is no front proxy".to_owned()));
        assert!(peer.user(now + 100 * 365 * 86_400).unwrap_err().contains("expired"), "the connection outlives it");
        let stranger = authenticator.peer(Some(&shown(&others, &Profile::client("alice", &[]))));
        assert!(stranger.user(now).is_err());
        let server = authenticator.peer(Some(&shown(&ours, &Profile::server("x", vec!["x".to_owned()], Vec::new()))));
        assert!(server.user(now).is_err(), "a certificate for servers says nothing about clients");
        assert_eq!(Peer::default().user(now).unwrap(), None);
    }

    #[test]
    fn a_front_proxy_has_an_authority_and_names_of_its_own() {
        let (users, proxies) = (Authority::create("users").unwrap(), Authority::create("proxies").unwrap());
        let allowed = vec!["front-proxy-client".to_owned()];
        let authenticator = CertificateAuthenticator::new(roots(&users), Some((roots(&proxies), allowed))).unwrap();
        let now = jiff::Timestamp::now().as_second();
        let peer = |authority, name| authenticator.peer(Some(&shown(authority, &Profile::client(name, &[]))));
        let proxy = peer(&proxies, "front-proxy-client");
        assert_eq!(proxy.is_front_proxy(now), Ok(true));
        assert!(proxy.user(now).is_err(), "a proxy is no user");
        assert!(peer(&proxies, "other").is_front_proxy(now).unwrap_err().contains("not in the allowed list"));
        assert!(peer(&users, "front-proxy-client").is_front_proxy(now).is_err());
    }
}
