//! Certificate authority, certificates, tokens, and whom TLS clients trust. No I/O but files that it is told of, and the
//! machine's own authorities.
//!
//! One authority signs everything in a cluster: the API server's and the kubelets' serving certificates and the client
//! certificates of components, nodes and administrators, told apart by their extended key usage. Certificates last a
//! year and are renewed by their users when a third of that is left; [`Live`] swaps them under running servers and
//! clients. Keys are ECDSA P-256.

mod authority;
mod files;
mod live;
mod request;
mod subject;
mod token;
mod trust;

pub use authority::{Authority, Issued, Profile, Usage, ca_hash};
pub use files::{read_secret, write_public, write_secret};
pub use live::Live;
pub use request::{KeyAndRequest, Requested};
pub use token::{Role, Token, TokenError};
pub use trust::Trust;

/// What goes wrong with certificates and keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}")]
    File { path: std::path::PathBuf, source: std::io::Error },
    #[error("{what} cannot be made")]
    Make { what: &'static str, source: rcgen::Error },
    #[error("{what} is not usable: {why}")]
    Unusable { what: &'static str, why: String },
}

impl Error {
    fn make(what: &'static str) -> impl FnOnce(rcgen::Error) -> Error {
        move |source| Error::Make { what, source }
    }
}

/// A key for signing ServiceAccount tokens: PKCS#8 PEM of a new ECDSA P-256 key.
pub fn new_signing_key() -> Result<String, Error> {
    Ok(rcgen::KeyPair::generate().map_err(Error::make("a signing key"))?.serialize_pem())
}

/// The public half of a PKCS#8 PEM private key, as PEM.
pub fn public_key(private_pem: &str) -> Result<String, Error> {
    Ok(rcgen::KeyPair::from_pem(private_pem).map_err(Error::make("the public key"))?.public_key_pem())
}
