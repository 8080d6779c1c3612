//! Subjects with more than one organisation, as groups are in client certificates. rcgen keeps one value for each kind
//! of name, so here the subject is put in its place in what rcgen made, and that is signed once more.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Error;

/// Organisations, `2.5.4.10`, and the common name, `2.5.4.3`.
const ORGANIZATION: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x0a];
const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;

/// What is signed, and at which place its subject stands.
#[derive(Clone, Copy, Debug)]
pub enum Signed {
    /// Version, serial number, algorithm, issuer and validity come before it.
    Certificate,
    /// The version comes before it.
    Request,
}

impl Signed {
    fn subject_index(self) -> usize {
        match self {
            Signed::Certificate => 5,
            Signed::Request => 1,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Signed::Certificate => "CERTIFICATE",
            Signed::Request => "CERTIFICATE REQUEST",
        }
    }
}

/// The same, DER, with another subject; PEM.
pub fn replace(
    what: Signed,
    der: &[u8],
    common_name: &str,
    organizations: &[String],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, rcgen::Error>,
) -> Result<String, Error> {
    let unusable = || Error::Unusable { what: "a certificate", why: "its encoding is not understood".to_owned() };
    let (outer, _) = element(der).ok_or_else(unusable)?;
    let (to_sign, rest) = element(outer.content).ok_or_else(unusable)?;
    let (algorithm, _) = element(rest).ok_or_else(unusable)?;
    let mut content = Vec::with_capacity(to_sign.content.len());
    let mut rest = to_sign.content;
    let mut index = 0;
    while !rest.is_empty() {
        let (part, after) = element(rest).ok_or_else(unusable)?;
        if index == what.subject_index() {
            content.extend(subject(common_name, organizations));
        } else {
            content.extend_from_slice(part.whole);
        }
        (rest, index) = (after, index + 1);
    }
    let to_sign = written(SEQUENCE, &content);
    let signature = sign(&to_sign).map_err(Error::make("a signature"))?;
    let bits = [&[0], signature.as_slice()].concat();
    let whole = [&to_sign, algorithm.whole, &written(BIT_STRING, &bits)].concat();
    Ok(pem(what.label(), &written(SEQUENCE, &whole)))
}

fn subject(common_name: &str, organizations: &[String]) -> Vec<u8> {
    let one = |kind: [u8; 5], value: &str| {
        let pair = [kind.as_slice(), &written(UTF8_STRING, value.as_bytes())].concat();
        written(SET, &written(SEQUENCE, &pair))
    };
    let mut names: Vec<u8> = organizations.iter().flat_map(|name| one(ORGANIZATION, name)).collect();
    names.extend(one(COMMON_NAME, common_name));
    written(SEQUENCE, &names)
}

struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

/// The first element, and what follows it.
fn element(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let first = *der.get(1)?;
    let (length, head) = if first < 0x80 {
        (usize::from(first), 2)
    } else {
        let digits = usize::from(first & 0x7f);
        let bytes = der.get(2..digits.checked_add(2)?).filter(|bytes| bytes.len() <= 4)?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), 2 + digits)
    };
    let end = head.checked_add(length)?;
    Some((Element { whole: der.get(..end)?, content: der.get(head..end)? }, der.get(end..)?))
}

fn written(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = vec![tag];
    if length < 0x80 {
        der.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let used = bytes.iter().skip_while(|byte| **byte == 0).count();
        der.push(0x80 | used as u8);
        der.extend_from_slice(bytes.get(bytes.len() - used..).unwrap_or_default());
    }
    der.extend_from_slice(content);
    der
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, UnixTime};
    use rustls::server::WebPkiClientVerifier;
    use x509_parser::pem::parse_x509_pem;

    use crate::{Authority, KeyAndRequest, Profile, Requested};

    #[test]
    fn a_user_is_in_several_groups() {
        let groups = [
            "dev",
            "ops",
            "a group whose name is so long that lengths take more than one byte, at least \
                       where all of them are put together, as they are in the subject of a certificate",
        ];
        let profile = Profile::client("jane", &groups);
        let authority = Authority::create("ca").unwrap();
        let request = KeyAndRequest::new(&profile).unwrap();
        let asked = Requested::parse(&request.request_pem).unwrap();
        assert_eq!(
            (asked.common_name.as_str(), asked.organizations.as_slice()),
            ("jane", &groups.map(str::to_owned)[..])
        );
        let issued = authority.issue(&profile).unwrap().cert_pem;
        let signed = authority.sign(&request.request_pem, &profile).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.cert_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        for pem in [issued, signed] {
            let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
            let cert = pem.parse_x509().unwrap();
            let der = CertificateDer::from(pem.contents.as_slice());
            verifier.verify_client_cert(&der, &[], UnixTime::now()).unwrap();
            let found: Vec<&str> = cert.subject().iter_organization().map(|name| name.as_str().unwrap()).collect();
            assert_eq!(found, groups);
            assert_eq!(cert.subject().iter_common_name().next().unwrap().as_str().unwrap(), "jane");
        }
    }
}
