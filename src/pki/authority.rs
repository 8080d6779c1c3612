//! Signs certificates.

use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SigningKey,
};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use crate::request::public_key_of;
use crate::subject::{self, Signed};
use crate::{Error, read_secret, write_public, write_secret};

const AUTHORITY_YEARS: i64 = 10;
const CERTIFICATE_DAYS: i64 = 365;
/// Clocks of other machines may be behind ours.
const BACKDATED: Duration = Duration::hours(1);

/// A certificate authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// For a client this is the user's name.
    pub common_name: String,
    /// For a client these are the user's groups.
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub usage: Usage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
}

impl Profile {
    pub fn client(user: &str, groups: &[&str]) -> Profile {
        Profile {
            common_name: user.to_owned(),
            organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
        }
    }

    pub fn server(common_name: &str, dns_names: Vec<String>, addresses: Vec<IpAddr>) -> Profile {
        Profile {
            common_name: common_name.to_owned(),
            organizations: Vec::new(),
            dns_names,
            addresses,
            usage: Usage::Server,
        }
    }
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Issued {
    pub cert_pem: String,
    pub key_pem: String,
}

impl Authority {
    /// A new authority whose certificate lasts ten years.
    pub fn create(common_name: &str) -> Result<Authority, Error> {
        let key = KeyPair::generate().map_err(Error::make("the CA's key"))?;
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        params.not_before = now - BACKDATED;
        params.not_after = now + Duration::days(365 * AUTHORITY_YEARS);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(Error::make("the CA's certificate"))?;
        Ok(Authority { cert_pem: cert.pem(), issuer: Issuer::new(params, key) })
    }

    /// The authority whose files are `<name>.crt` and `<name>.key` in `dir`, made when they are absent.
    pub fn load_or_create(dir: &Path, name: &str, common_name: &str) -> Result<Authority, Error> {
        let (cert_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        match (read_secret(&cert_path)?, read_secret(&key_path)?) {
            (Some(cert_pem), Some(key_pem)) => {
                let key = KeyPair::from_pem(&key_pem).map_err(Error::make("the CA's key"))?;
                let issuer = Issuer::from_ca_cert_pem(&cert_pem, key).map_err(Error::make("the CA"))?;
                Ok(Authority { issuer, cert_pem })
            }
            (Some(_), None) => Err(Error::Unusable {
                what: "the CA",
                why: format!("{} is there and {} is missing", cert_path.display(), key_path.display()),
            }),
            // A key without a certificate is what a crash between the two writes leaves: nobody has trusted it yet.
            (None, _) => {
                let authority = Authority::create(common_name)?;
                write_secret(&key_path, &authority.issuer.key().serialize_pem())?;
                write_public(&cert_path, &authority.cert_pem)?;
                Ok(authority)
            }
        }
    }

    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// SHA-256 of the certificate's PEM in hex: what a join token carries.
    pub fn hash(&self) -> String {
        ca_hash(self.cert_pem.as_bytes())
    }

    /// A new key and its certificate.
    pub fn issue(&self, profile: &Profile) -> Result<Issued, Error> {
        let key = KeyPair::generate().map_err(Error::make("a key"))?;
        let cert = params(profile)?.signed_by(&key, &self.issuer).map_err(Error::make("a certificate"))?;
        Ok(Issued { cert_pem: self.complete(&cert, profile)?, key_pem: key.serialize_pem() })
    }

    /// A certificate for the key of a request (PKCS#10 PEM). What it says is up to `profile`, not to the request, whose
    /// signature is checked.
    pub fn sign(&self, request_pem: &str, profile: &Profile) -> Result<String, Error> {
        let key = public_key_of(request_pem)?;
        let cert = params(profile)?.signed_by(&key, &self.issuer).map_err(Error::make("a certificate"))?;
        self.complete(&cert, profile)
    }

    /// With all organisations.
    fn complete(&self, cert: &Certificate, profile: &Profile) -> Result<String, Error> {
        if profile.organizations.len() < 2 {
            return Ok(cert.pem());
        }
        let sign = |bytes: &[u8]| self.issuer.key().sign(bytes);
        subject::replace(Signed::Certificate, cert.der(), &profile.common_name, &profile.organizations, sign)
    }
}

/// SHA-256 in hex of a CA bundle's bytes.
pub fn ca_hash(bundle: &[u8]) -> String {
    hex::encode(Sha256::digest(bundle))
}

fn params(profile: &Profile) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(CERTIFICATE_DAYS);
    params.distinguished_name = name(&profile.common_name, &profile.organizations);
    params.subject_alt_names = alt_names(&profile.dns_names, &profile.addresses)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![match profile.usage {
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    Ok(params)
}

/// Of several organisations it holds the last one.
pub(crate) fn name(common_name: &str, organizations: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, common_name);
    name
}

pub(crate) fn alt_names(dns_names: &[String], addresses: &[IpAddr]) -> Result<Vec<SanType>, Error> {
    let mut names = Vec::with_capacity(dns_names.len() + addresses.len());
    for dns_name in dns_names {
        let dns_name = dns_name.as_str().try_into().map_err(Error::make("a DNS name"))?;
        names.push(SanType::DnsName(dns_name));
    }
    names.extend(addresses.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::*;

    #[test]
    fn an_authority_is_the_same_after_a_restart_and_signs() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(dir.path(), "ca", "cluster-ca").unwrap();
        let again = Authority::load_or_create(dir.path(), "ca", "cluster-ca").unwrap();
        assert_eq!(first.hash(), again.hash());
        let issued = again.issue(&Profile::client("alice", &["staff"])).unwrap();
        let (_, pem) = parse_x509_pem(issued.cert_pem.as_bytes()).unwrap();
        let cert = pem.parse_x509().unwrap();
        assert_eq!(cert.subject().to_string(), "O=staff, CN=alice");
        let (_, ca) = parse_x509_pem(first.cert_pem().as_bytes()).unwrap();
        let ca = ca.parse_x509().unwrap();
        assert_eq!(cert.issuer(), ca.subject());
        let usage = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
    }

    #[test]
    fn a_certificate_without_its_key_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        Authority::load_or_create(dir.path(), "ca", "cluster-ca").unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(matches!(Authority::load_or_create(dir.path(), "ca", "x"), Err(Error::Unusable { .. })));
    }
}
