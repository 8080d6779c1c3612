//! Users by client certificate.
//!
//! The handshake takes any certificate whose key the peer has; whether an authority of ours signed it is decided
//! afterwards, so that a stale certificate gets a 401 that clients understand and not a broken handshake.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Peer;
use crate::identity::Identity;

/// Certificates in a chain that are looked at.
const INTERMEDIATES_MAX: usize = 8;

/// Asks for a client certificate and takes any.
#[derive(Debug)]
pub struct AnyClientCertificate(Arc<dyn ClientCertVerifier>);

/// Decides whose certificate it is.
#[derive(Clone)]
pub struct CertificateAuthenticator(Arc<dyn ClientCertVerifier>);

/// A verifier for both that trusts `authorities`.
pub fn verifier(authorities: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, crate::Error> {
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
    pub fn new(authorities: Arc<RootCertStore>) -> Result<CertificateAuthenticator, crate::Error> {
        Ok(CertificateAuthenticator(verifier(authorities)?))
    }

    /// Who the peer is by the certificates that it showed.
    pub fn identify(&self, shown: Option<&[CertificateDer<'_>]>) -> Peer {
        let Some((leaf, rest)) = shown.and_then(|chain| chain.split_first()) else { return Peer::Unknown };
        if rest.len() > INTERMEDIATES_MAX {
            return Peer::BadCertificate;
        }
        if let Err(reason) = self.0.verify_client_cert(leaf, rest, UnixTime::now()) {
            tracing::debug!(%reason, "a client certificate is refused");
            return Peer::BadCertificate;
        }
        match subject(leaf) {
            Some(identity) => Peer::Certificate(Arc::new(identity)),
            None => Peer::BadCertificate,
        }
    }
}

fn subject(leaf: &CertificateDer<'_>) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups: Vec<String> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    (!name.is_empty()).then(|| Identity::user(name, groups))
}
