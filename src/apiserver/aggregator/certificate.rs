//! The certificate that this server shows to aggregated ones: its own, or the one that an administrator gives it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pki::{Issued, Live};
use rustls::client::ResolvesClientCert;
use task::Shutdown;

use crate::config::{AggregationOptions, Error};
use crate::reload;

/// Files are read now, and again when they change, until shutdown.
pub fn shown(options: &AggregationOptions, shutdown: &Shutdown) -> Result<Arc<dyn ResolvesClientCert>, Error> {
    let (certificate, key) = match (&options.files.certificate, &options.files.key) {
        (None, None) => return Ok(options.client_certificate.clone()),
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
        _ => return Err(Error::Flags("proxy-client-cert-file and proxy-client-key-file must be given together")),
    };
    let issued = read(&certificate, &key)?;
    let text = issued.cert_pem.clone();
    let live = Live::new(&issued)?;
    let (shown, shutdown) = (live.clone(), shutdown.clone());
    task::spawn("proxy-client-certificate", async move {
        let path = certificate.clone();
        reload::follow(path, text, shutdown, move |_| {
            let taken = read(&certificate, &key).and_then(|issued| Ok(shown.replace(&issued)?));
            if let Err(error) = &taken {
                tracing::error!(%error, "the changed certificate for aggregated servers is not taken over");
            }
            std::future::ready(taken.is_ok())
        })
        .await;
    });
    Ok(Arc::new(live))
}

fn read(certificate: &Path, key: &Path) -> Result<Issued, Error> {
    let text = |path: &Path| {
        let failed = |error: std::io::Error| Error::File { path: PathBuf::from(path), reason: error.to_string() };
        std::fs::read_to_string(path).map_err(failed)
    };
    Ok(Issued { cert_pem: text(certificate)?, key_pem: text(key)? })
}
