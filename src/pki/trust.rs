//! Whom a TLS client trusts: a bundle of authorities as it stands in an object or a file, the system's, or anybody.
//!
//! Go's clients also take a certificate that stands in the bundle itself and is shown as it is, as `openssl req -x509`
//! makes them; webpki does not, so that is added here.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls::{ClientConfig, client::WantsClientCert};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Error;

/// Where distributions keep the certificates they trust; the first that can be read is taken.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whose word a client takes for a server's name.
#[derive(Clone, Debug)]
pub enum Trust {
    /// What the machine trusts.
    System,
    /// What the machine trusts, and these authorities: PEM certificates.
    SystemAnd(Vec<u8>),
    /// These authorities and nobody else: PEM certificates (upstream: `caBundle`).
    Bundle(Vec<u8>),
    /// These authorities and nobody else.
    Roots(Arc<RootCertStore>),
    /// Any certificate will do, but the server must hold its key (upstream: `insecureSkipTLSVerify`).
    Anybody,
}

impl Trust {
    /// The beginning of a client's TLS settings; what is missing is the client's own certificate, if it has one.
    pub fn client(&self) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let unusable = |error: &dyn std::fmt::Display| Error::Unusable { what: "TLS", why: error.to_string() };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| unusable(&error))?;
        let (roots, pinned) = match self {
            Trust::Anybody => {
                return Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer { provider })));
            }
            Trust::Roots(roots) => return Ok(builder.with_root_certificates(roots.clone())),
            Trust::System => (system_roots(), Vec::new()),
            Trust::SystemAnd(pem) => bundle(pem, system_roots())?,
            Trust::Bundle(pem) => bundle(pem, RootCertStore::empty())?,
        };
        if pinned.is_empty() {
            return Ok(builder.with_root_certificates(roots));
        }
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| unusable(&error))?;
        Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(ChainOrPinned { chains, pinned })))
    }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read(path).ok()) {
        // A bundle may hold certificates that are of no use to us.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    }
    roots
}

/// The roots with those of a bundle, and the bundle's certificates.
fn bundle(pem: &[u8], mut roots: RootCertStore) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Error> {
    let unusable = |why: String| Error::Unusable { what: "the bundle of authorities", why };
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| unusable(error.to_string()))?;
    }
    Ok((roots, certificates))
}

/// Chains as usual, and besides a certificate that is in the bundle itself.
#[derive(Debug)]
struct ChainOrPinned {
    chains: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for ChainOrPinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chained = self.chains.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        if chained.is_ok() || !self.pinned.iter().any(|pinned| pinned == end_entity) {
            return chained;
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        let encoding = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, parsed) = X509Certificate::from_der(end_entity).map_err(|_| encoding())?;
        let now = i64::try_from(now.as_secs()).map_err(|_| encoding())?;
        if parsed.validity().not_before.timestamp() > now {
            return Err(CertificateError::NotValidYet.into());
        }
        if parsed.validity().not_after.timestamp() < now {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Profile};

    fn verifies(bundle_pem: &str, shown: &str, name: &str) -> bool {
        let (roots, pinned) = bundle(bundle_pem.as_bytes(), RootCertStore::empty()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let verifier = ChainOrPinned { chains, pinned };
        let shown = CertificateDer::from_pem_slice(shown.as_bytes()).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&shown, &[], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn a_bundle_speaks_for_its_own_and_for_what_stands_in_it() {
        let authority = Authority::create("ca").unwrap();
        let own = authority.issue(&Profile::server("x", vec!["hook.shop.svc".to_owned()], Vec::new())).unwrap();
        assert!(verifies(authority.cert_pem(), &own.cert_pem, "hook.shop.svc"));
        assert!(!verifies(authority.cert_pem(), &own.cert_pem, "other.shop.svc"));
        let stranger = Authority::create("ca").unwrap();
        assert!(!verifies(stranger.cert_pem(), &own.cert_pem, "hook.shop.svc"));

        // As `openssl req -x509` makes it: an authority that is its own server.
        let mut parameters = rcgen::CertificateParams::new(vec!["hook.shop.svc".to_owned()]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let itself = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        assert!(verifies(&itself, &itself, "hook.shop.svc"));
        assert!(!verifies(&itself, &itself, "other.shop.svc"));
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        assert!(Trust::Bundle(b"nothing".to_vec()).client().is_err());
        assert!(Trust::System.client().is_ok() && Trust::Anybody.client().is_ok());
    }
}
