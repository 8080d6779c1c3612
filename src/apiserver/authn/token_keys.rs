//! The key that signs ServiceAccount tokens, and those that verify them.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::tokens::TOKEN_BYTES_MAX;
use crate::config::{Error, ServiceAccountOptions};

pub struct TokenKeys {
    /// The first stands in new tokens.
    issuers: Vec<String>,
    audiences: Vec<String>,
    signing: EncodingKey,
    algorithm: Algorithm,
    key_id: String,
    verifying: Vec<(Algorithm, DecodingKey)>,
    jwks: JwkSet,
}

impl TokenKeys {
    /// `pem` signs and verifies; what the files of the options hold verifies besides.
    pub fn new(pem: &str, options: &ServiceAccountOptions) -> Result<TokenKeys, Error> {
        let (signing, algorithm, own) = private(pem).map_err(|reason| Error::SigningKey { reason })?;
        let key_id = own.common.key_id.clone().unwrap_or_default();
        let mut jwks = JwkSet { keys: vec![own] };
        for path in &options.key_files {
            for key in read(path)? {
                if jwks.keys.iter().all(|known| known.common.key_id != key.common.key_id) {
                    jwks.keys.push(key);
                }
            }
        }
        let verifying = jwks.keys.iter().map(verifying).collect::<Result<_, _>>();
        let issuers = options.issuers.clone();
        let mut audiences = options.api_audiences.clone();
        if audiences.is_empty() {
            audiences.clone_from(&issuers);
        }
        let verifying = verifying.map_err(|reason| Error::SigningKey { reason })?;
        Ok(TokenKeys { issuers, audiences, signing, algorithm, key_id, verifying, jwks })
    }

    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    pub fn issuers(&self) -> &[String] {
        &self.issuers
    }

    /// The audiences of this API server; never empty.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// What `/openid/v1/jwks` answers.
    pub fn jwks(&self) -> &JwkSet {
        &self.jwks
    }

    /// As the discovery document names them.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.verifying.iter().map(|(algorithm, _)| name(*algorithm)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub fn sign(&self, claims: &impl Serialize) -> Result<String, jsonwebtoken::errors::Error> {
        let header = Header { typ: None, kid: Some(self.key_id.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.signing)
    }

    /// The claims, if one of the keys signed them. Times and audiences are not looked at.
    pub fn verify<T: DeserializeOwned + Clone>(&self, token: &str) -> Result<T, String> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is too long".to_owned());
        }
        let mut reason = "no key fits the token's algorithm".to_owned();
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        let (named, others): (Vec<_>, Vec<_>) = self
            .verifying
            .iter()
            .zip(&self.jwks.keys)
            .filter(|((algorithm, _), _)| *algorithm == header.alg)
            .partition(|(_, key)| header.kid.is_some() && key.common.key_id == header.kid);
        // As upstream: the key that the token names, or else each.
        for ((algorithm, key), _) in if named.is_empty() { others } else { named } {
            let mut validation = Validation::new(*algorithm);
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation.validate_aud = false;
            validation.required_spec_claims.clear();
            match jsonwebtoken::decode::<T>(token, key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }
}

fn private(pem: &str) -> Result<(EncodingKey, Algorithm, Jwk), String> {
    let (signing, algorithm) = match EncodingKey::from_ec_pem(pem.as_bytes()) {
        Ok(key) => (key, Algorithm::ES256),
        Err(_) => (EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|error| error.to_string())?, Algorithm::RS256),
    };
    let jwk = Jwk::from_encoding_key(&signing, algorithm).map_err(|error| error.to_string())?;
    Ok((signing, algorithm, published(jwk)?))
}

fn published(mut key: Jwk) -> Result<Jwk, String> {
    key.common.key_id = Some(key.thumbprint(ThumbprintHash::SHA256).map_err(|error| error.to_string())?);
    key.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok(key)
}

fn verifying(key: &Jwk) -> Result<(Algorithm, DecodingKey), String> {
    let algorithm = match &key.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => Algorithm::ES384,
        _ => Algorithm::ES256,
    };
    Ok((algorithm, DecodingKey::from_jwk(key).map_err(|error| error.to_string())?))
}

fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        _ => "RS256",
    }
}

/// The public keys in a file: public or private keys, or certificates.
fn read(path: &PathBuf) -> Result<Vec<Jwk>, Error> {
    let refused = |reason: String| Error::File { path: path.clone(), reason };
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&pem) {
        let (kind, der) = section.map_err(|error| refused(error.to_string()))?;
        let key = match kind {
            SectionKind::PublicKey => public(&der),
            SectionKind::Certificate => match X509Certificate::from_der(&der) {
                Ok((_, certificate)) => public(certificate.public_key().raw),
                Err(error) => Err(error.to_string()),
            },
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                std::str::from_utf8(&pem).map_err(|error| error.to_string()).and_then(private).map(|(.., key)| key)
            }
            _ => continue,
        };
        keys.push(key.map_err(refused)?);
    }
    if keys.is_empty() {
        return Err(refused("data does not contain any valid RSA or ECDSA public keys".to_owned()));
    }
    Ok(keys)
}

fn public(der: &[u8]) -> Result<Jwk, String> {
    let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| {
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
        URL_SAFE_NO_PAD.encode(bytes.get(first..).unwrap_or_default())
    };
    let key = match info.parsed().map_err(|error| error.to_string())? {
        PublicKey::RSA(key) => json!({"kty": "RSA", "alg": "RS256", "n": text(key.modulus), "e": text(key.exponent)}),
        PublicKey::EC(point) => {
            let data = point.data();
            let (curve, algorithm, half) = match data.len() {
                65 => ("P-256", "ES256", 32),
                97 => ("P-384", "ES384", 48),
                _ => return Err("the curve is not supported".to_owned()),
            };
            let part = |from: usize| URL_SAFE_NO_PAD.encode(data.get(from..from + half).unwrap_or_default());
            json!({"kty": "EC", "alg": algorithm, "crv": curve, "x": part(1), "y": part(1 + half)})
        }
        _ => return Err("neither an RSA nor an ECDSA key".to_owned()),
    };
    published(serde_json::from_value(key).map_err(|error| error.to_string())?)
}
