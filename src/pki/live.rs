//! A certificate that can be replaced under running servers and clients.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Error;
use crate::authority::Issued;

/// Hands the current certificate to every handshake. Clones share it.
#[derive(Clone, Debug)]
pub struct Live {
    current: Arc<ArcSwap<Current>>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Live {
    pub fn new(issued: &Issued) -> Result<Live, Error> {
        Ok(Live { current: Arc::new(ArcSwap::from_pointee(parse(issued)?)) })
    }

    /// Handshakes from now on use this certificate; connections that stand are left alone.
    pub fn replace(&self, issued: &Issued) -> Result<(), Error> {
        self.current.store(Arc::new(parse(issued)?));
        Ok(())
    }

    /// When the certificate should be renewed: when a third of its life is left.
    pub fn renew_at(&self) -> OffsetDateTime {
        let current = self.current.load();
        current.not_after - (current.not_after - current.not_before) / 3
    }

    /// True if the time to renew it has come.
    pub fn is_due(&self) -> bool {
        self.renew_at() <= OffsetDateTime::now_utc()
    }

    /// How long until the time to renew it comes.
    pub fn due_in(&self) -> std::time::Duration {
        (self.renew_at() - OffsetDateTime::now_utc()).try_into().unwrap_or_default()
    }

    /// False once the certificate has expired.
    pub fn is_valid(&self) -> bool {
        self.current.load().not_after > OffsetDateTime::now_utc()
    }
}

fn parse(issued: &Issued) -> Result<Current, Error> {
    let unusable = |why: String| Error::Unusable { what: "the certificate", why };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(issued.cert_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    let leaf = chain.first().ok_or_else(|| unusable("it is empty".to_owned()))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| unusable(error.to_string()))?;
    let (not_before, not_after) =
        (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime());
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).map_err(|error| unusable(error.to_string()))?;
    let key = CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
        .map_err(|error| unusable(error.to_string()))?;
    Ok(Current { key: Arc::new(key), not_before, not_after })
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().key.clone())
    }
}

impl ResolvesClientCert for Live {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Profile};

    #[test]
    fn a_certificate_is_replaced_and_renewed_in_time() {
        let authority = Authority::create("ca").unwrap();
        let live = Live::new(&authority.issue(&Profile::client("a", &[])).unwrap()).unwrap();
        let first = live.current.load().key.clone();
        let days_left = (live.renew_at() - OffsetDateTime::now_utc()).whole_days();
        assert!((242..=244).contains(&days_left), "{days_left}");
        assert!(live.is_valid() && !live.is_due() && live.due_in().as_secs() > 240 * 86400);
        live.clone().replace(&authority.issue(&Profile::client("b", &[])).unwrap()).unwrap();
        assert_ne!(first.cert, live.current.load().key.cert);
    }
}
