//! Certificate signing requests (PKCS#10).

use std::net::IpAddr;

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair, SanType, SigningKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use crate::Error;
use crate::authority::{Profile, alt_names, name};
use crate::subject::{self, Signed};

/// A new key and the request for its certificate, both PEM.
pub struct KeyAndRequest {
    pub key_pem: String,
    pub request_pem: String,
}

impl KeyAndRequest {
    pub fn new(profile: &Profile) -> Result<KeyAndRequest, Error> {
        let key = KeyPair::generate().map_err(Error::make("a key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&profile.common_name, &profile.organizations);
        params.subject_alt_names = alt_names(&profile.dns_names, &profile.addresses)?;
        let request = params.serialize_request(&key).map_err(Error::make("a certificate request"))?;
        let request_pem = if profile.organizations.len() < 2 {
            request.pem().map_err(Error::make("a certificate request"))?
        } else {
            let sign = |bytes: &[u8]| key.sign(bytes);
            subject::replace(Signed::Request, request.der(), &profile.common_name, &profile.organizations, sign)?
        };
        Ok(KeyAndRequest { key_pem: key.serialize_pem(), request_pem })
    }
}

/// What a request asks for. Its signature has been checked: the requester has the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// It asks for names of other kinds (e-mail, URI) as well.
    pub other_names: bool,
}

impl Requested {
    pub fn parse(request_pem: &str) -> Result<Requested, Error> {
        let params = parse(request_pem)?.params;
        let mut requested = Requested {
            common_name: String::new(),
            organizations: Vec::new(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            other_names: false,
        };
        let (_, pem) = parse_x509_pem(request_pem.as_bytes()).map_err(unusable)?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(unusable)?;
        let subject = &request.certification_request_info.subject;
        for name in subject.iter_common_name() {
            requested.common_name = text(name)?;
        }
        for name in subject.iter_organization() {
            requested.organizations.push(text(name)?);
        }
        for name in &params.subject_alt_names {
            match name {
                SanType::DnsName(name) => requested.dns_names.push(name.as_str().to_owned()),
                SanType::IpAddress(address) => requested.addresses.push(*address),
                _ => requested.other_names = true,
            }
        }
        Ok(requested)
    }
}

pub(crate) fn public_key_of(request_pem: &str) -> Result<rcgen::PublicKey, Error> {
    Ok(parse(request_pem)?.public_key)
}

fn parse(request_pem: &str) -> Result<CertificateSigningRequestParams, Error> {
    CertificateSigningRequestParams::from_pem(request_pem).map_err(unusable)
}

fn unusable(why: impl std::fmt::Display) -> Error {
    Error::Unusable { what: "the certificate request", why: why.to_string() }
}

fn text(name: &AttributeTypeAndValue<'_>) -> Result<String, Error> {
    name.as_str().map(str::to_owned).map_err(|_| unusable("its subject is in an unusual encoding"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;

    #[test]
    fn a_request_says_what_was_asked_and_the_certificate_what_was_granted() {
        let mut profile = Profile::server("system:node:a", vec!["a".into()], vec!["10.0.0.1".parse().unwrap()]);
        profile.organizations = vec!["system:nodes".into()];
        let request = KeyAndRequest::new(&profile).unwrap();
        let asked = Requested::parse(&request.request_pem).unwrap();
        assert_eq!(asked.common_name, "system:node:a");
        assert_eq!(asked.organizations, ["system:nodes"]);
        assert_eq!((asked.dns_names.len(), asked.addresses.len(), asked.other_names), (1, 1, false));
        let authority = Authority::create("ca").unwrap();
        let cert = authority.sign(&request.request_pem, &Profile::client("bob", &[])).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(cert.as_bytes()).unwrap();
        assert_eq!(pem.parse_x509().unwrap().subject().to_string(), "CN=bob");
    }

    #[test]
    fn garbage_is_refused() {
        assert!(Requested::parse("").is_err());
        assert!(
            Requested::parse("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----").is_err()
        );
    }
}
