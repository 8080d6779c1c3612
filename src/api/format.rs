//! The forms that strings in objects must have: DNS names, label keys and values, port names and the like
//! (upstream's `util/validation`). Each check is a hand-written matcher that allocates only to say what is wrong.

use std::net::IpAddr;

use ipnet::IpNet;

/// What is wrong with a string; nothing when it is well-formed. Texts are what people know from `kubectl`.
pub type Findings = Vec<String>;

pub const LABEL_BYTES_MAX: usize = 63;
pub const SUBDOMAIN_BYTES_MAX: usize = 253;
const PORT_NAME_BYTES_MAX: usize = 15;

const LABEL_PATTERN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_PATTERN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL_1035_PATTERN: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const KEY_PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const KEY_TEXT: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_PATTERN: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// `<text> (e.g. 'a',  or 'b', regex used for validation is '…')`, as upstream writes it.
pub fn pattern_text(text: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{pattern}')");
    }
    let mut whole = format!("{text} (e.g. ");
    for (index, example) in examples.iter().enumerate() {
        if index > 0 {
            whole.push_str(" or ");
        }
        whole.push_str(&format!("'{example}', "));
    }
    whole.push_str(&format!("regex used for validation is '{pattern}')"));
    whole
}

/// Names are said to have characters, labels bytes; both are counted in bytes.
pub fn length_text(bytes_max: usize) -> String {
    format!("must be no more than {bytes_max} characters")
}

fn label_length_text(bytes_max: usize) -> String {
    format!("must be no more than {bytes_max} bytes")
}

pub fn range_text(min: i64, max: i64) -> String {
    format!("must be between {min} and {max}, inclusive")
}

fn lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Begins and ends with `edge`, everything between is `edge` or one of `inner`.
fn framed(value: &[u8], edge: fn(u8) -> bool, inner: &[u8]) -> bool {
    match (value.first(), value.last()) {
        (Some(&first), Some(&last)) => {
            edge(first) && edge(last) && value.iter().all(|&byte| edge(byte) || inner.contains(&byte))
        }
        _ => false,
    }
}

fn looks_like_label(value: &[u8]) -> bool {
    framed(value, lower_alphanumeric, b"-")
}

fn looks_like_subdomain(value: &[u8]) -> bool {
    value.split(|&byte| byte == b'.').all(looks_like_label)
}

fn looks_like_key(value: &[u8]) -> bool {
    framed(value, |byte| byte.is_ascii_alphanumeric(), b"-_.")
}

/// A DNS label (RFC 1123).
pub fn dns_label(value: &str) -> Findings {
    let mut findings = Findings::new();
    if value.len() > LABEL_BYTES_MAX {
        findings.push(length_text(LABEL_BYTES_MAX));
    }
    if !looks_like_label(value.as_bytes()) {
        if looks_like_subdomain(value.as_bytes()) {
            findings.push("must not contain dots".to_owned());
        } else {
            findings.push(pattern_text(LABEL_TEXT, LABEL_PATTERN, &["my-name", "123-abc"]));
        }
    }
    findings
}

/// A DNS name (RFC 1123).
pub fn dns_subdomain(value: &str) -> Findings {
    let mut findings = Findings::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        findings.push(length_text(SUBDOMAIN_BYTES_MAX));
    }
    if !looks_like_subdomain(value.as_bytes()) {
        findings.push(pattern_text(SUBDOMAIN_TEXT, SUBDOMAIN_PATTERN, &["example.com"]));
    }
    findings
}

/// What a generated name begins with: it may end with a dash.
pub fn name_prefix(value: &str) -> Findings {
    match value.strip_suffix('-').and_then(|rest| rest.get(..rest.len().checked_sub(1)?)) {
        Some(rest) => dns_subdomain(&format!("{rest}a")),
        None => dns_subdomain(value),
    }
}

/// A DNS label that begins with a letter (RFC 1035).
pub fn dns_1035_label(value: &str) -> Findings {
    let mut findings = Findings::new();
    if value.len() > LABEL_BYTES_MAX {
        findings.push(length_text(LABEL_BYTES_MAX));
    }
    let letter_first = value.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if !letter_first || !looks_like_label(value.as_bytes()) {
        findings.push(pattern_text(LABEL_1035_TEXT, LABEL_1035_PATTERN, &["my-name", "abc-123"]));
    }
    findings
}

/// `*.` before a DNS name.
pub fn wildcard_subdomain(value: &str) -> Findings {
    const TEXT: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
    let mut findings = Findings::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        findings.push(length_text(SUBDOMAIN_BYTES_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(|rest| looks_like_subdomain(rest.as_bytes())) {
        findings.push(pattern_text(TEXT, &format!("\\*\\.{SUBDOMAIN_PATTERN}"), &["*.example.com"]));
    }
    findings
}

/// A label key: an optional DNS name and `/`, and a name (upstream's `IsQualifiedName`).
pub fn label_key(value: &str) -> Findings {
    const EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
    let mut findings = Findings::new();
    let name = match value.split_once('/') {
        None => value,
        Some((prefix, name)) if !name.contains('/') => {
            if prefix.is_empty() {
                findings.push("prefix part must be non-empty".to_owned());
            } else {
                findings.extend(dns_subdomain(prefix).into_iter().map(|finding| format!("prefix part {finding}")));
            }
            name
        }
        Some(_) => {
            let text = pattern_text(KEY_TEXT, KEY_PATTERN, &EXAMPLES);
            findings.push(format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return findings;
        }
    };
    if name.is_empty() {
        findings.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES_MAX {
        findings.push(format!("name part {}", label_length_text(LABEL_BYTES_MAX)));
    }
    if !looks_like_key(name.as_bytes()) {
        findings.push(format!("name part {}", pattern_text(KEY_TEXT, KEY_PATTERN, &EXAMPLES)));
    }
    findings
}

pub fn label_value(value: &str) -> Findings {
    let mut findings = Findings::new();
    if value.len() > LABEL_BYTES_MAX {
        findings.push(label_length_text(LABEL_BYTES_MAX));
    }
    if !value.is_empty() && !looks_like_key(value.as_bytes()) {
        findings.push(pattern_text(LABEL_VALUE_TEXT, LABEL_VALUE_PATTERN, &["MyValue", "my_value", "12345"]));
    }
    findings
}

/// A name that can stand in a URL's path; as a prefix, `.` and `..` are fine because more follows.
pub fn path_segment(value: &str, prefix: bool) -> Findings {
    if !prefix && (value == "." || value == "..") {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].into_iter().filter(|one| value.contains(one)).map(|one| format!("may not contain '{one}'")).collect()
}

/// A key of a ConfigMap or Secret: also a file name.
pub fn config_key(value: &str) -> Findings {
    const TEXT: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
    let mut findings = Findings::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        findings.push(length_text(SUBDOMAIN_BYTES_MAX));
    }
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        findings.push(pattern_text(TEXT, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    if value == "." || value == ".." {
        findings.push(format!("must not be '{value}'"));
    } else if value.starts_with("..") {
        findings.push("must not start with '..'".to_owned());
    }
    findings
}

/// The name of an environment variable: printable ASCII but `=`.
pub fn env_name(value: &str) -> Findings {
    let mut findings = Findings::new();
    if value.is_empty() {
        findings.push("environment variable name must be non-empty".to_owned());
    }
    if value.bytes().any(|byte| !(b' '..=b'~').contains(&byte) || byte == b'=') {
        findings.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    findings
}

pub fn port_number(port: i64) -> Findings {
    if (1..=65535).contains(&port) { Findings::new() } else { vec![range_text(1, 65535)] }
}

/// The name of a port (RFC 6335, lower case).
pub fn port_name(value: &str) -> Findings {
    let mut findings = Findings::new();
    if value.len() > PORT_NAME_BYTES_MAX {
        findings.push(length_text(PORT_NAME_BYTES_MAX));
    }
    if value.is_empty() || !value.bytes().all(|byte| lower_alphanumeric(byte) || byte == b'-') {
        findings.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        findings.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        findings.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        findings.push("must not begin or end with a hyphen".to_owned());
    }
    findings
}

pub fn percent(value: &str) -> Findings {
    const TEXT: &str = "a valid percent string must be a numeric string followed by an ending '%'";
    let good = value
        .strip_suffix('%')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    if good { Findings::new() } else { vec![pattern_text(TEXT, "[0-9]+%", &["1%", "93%"])] }
}

pub fn http_header_name(value: &str) -> Findings {
    const TEXT: &str = "a valid HTTP header must consist of alphanumeric characters or '-'";
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        Findings::new()
    } else {
        vec![pattern_text(TEXT, "[-A-Za-z0-9]+", &["X-Header-Name"])]
    }
}

/// An identifier as in C.
pub fn c_identifier(value: &str) -> Findings {
    const TEXT: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
    let first = value.as_bytes().first().is_some_and(|&byte| byte.is_ascii_alphabetic() || byte == b'_');
    if first && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        Findings::new()
    } else {
        vec![pattern_text(TEXT, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
    }
}

/// An IP address without oddities: no leading zeros, no IPv4 in IPv6 (upstream's `IsValidIP`, strict since 1.36).
pub fn ip(value: &str) -> Findings {
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(_) => Findings::new(),
        Err(_) if without_leading_zeros(value).parse::<IpAddr>().is_ok() => {
            vec!["must not have leading 0s".to_owned()]
        }
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// A network prefix without oddities (upstream's `IsValidCIDR`, strict since 1.36).
pub fn cidr(value: &str) -> Findings {
    const ZEROS: &str = "must not have leading 0s in IP or prefix length";
    // ipnet overlooks leading zeros of addresses, so the parts are looked at by themselves.
    let Ok(net) = without_leading_zeros(value).parse::<IpNet>() else {
        return vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    };
    let (address, length) = value.split_once('/').unwrap_or((value, ""));
    if address.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0')) {
        return vec![ZEROS.to_owned()];
    }
    match net {
        IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some() => {
            vec!["must not have an IPv4-mapped IPv6 address".to_owned()]
        }
        net if net.addr() != net.network() => vec!["must not have bits set beyond the prefix length".to_owned()],
        _ => Findings::new(),
    }
}

/// The numbers of an IPv4 address as they are meant.
fn without_leading_zeros(value: &str) -> String {
    let plain = |part: &str| match part.trim_start_matches('0') {
        rest if rest.is_empty() && !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let (address, length) = value.split_once('/').map_or((value, None), |(address, length)| (address, Some(length)));
    if address.contains(':') {
        return length.map_or_else(|| value.to_owned(), |length| format!("{address}/{}", plain(length)));
    }
    let address = address.split('.').map(plain).collect::<Vec<_>>().join(".");
    length.map_or_else(|| address.clone(), |length| format!("{address}/{}", plain(length)))
}

/// An absolute HTTP path of the form that probes and hooks take.
pub fn is_absolute(path: &str) -> bool {
    path.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_only_looks_like_them() {
        for good in ["a", "web-1", "1a", "a.b-c.d", &"a".repeat(253)] {
            assert!(dns_subdomain(good).is_empty(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a..b", ".a", "a_b", "ä", &"a".repeat(254)] {
            assert_eq!(dns_subdomain(bad).len(), 1, "{bad}");
        }
        assert_eq!(
            dns_subdomain("Web"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
              start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert!(dns_1035_label("a1").is_empty());
        assert_eq!(dns_1035_label("1a").len(), 1);
    }

    #[test]
    fn label_keys_and_values() {
        for good in ["app", "app.kubernetes.io/name", "a/B_c.d", "123-abc"] {
            assert!(label_key(good).is_empty(), "{good}");
        }
        assert_eq!(label_key("/a"), ["prefix part must be non-empty"]);
        assert_eq!(label_key("a/b/c").len(), 1);
        assert_eq!(label_key("").len(), 2);
        assert!(label_key("A.b/c")[0].starts_with("prefix part a lowercase RFC 1123 subdomain"));
        assert!(label_value("").is_empty() && label_value("My_Value.1").is_empty());
        assert!(label_value("a b")[0].contains("(e.g. 'MyValue',  or 'my_value',  or '12345', regex used"));
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    }

    #[test]
    fn smaller_forms() {
        assert!(port_name("http-web").is_empty());
        assert_eq!(port_name("1234").len(), 1);
        assert_eq!(port_name("a--b"), ["must not contain consecutive hyphens"]);
        assert_eq!(config_key(".."), ["must not be '..'"]);
        assert_eq!(config_key("..a"), ["must not start with '..'"]);
        assert!(config_key("nginx.conf").is_empty());
        assert!(env_name("MY VAR").is_empty());
        assert_eq!(env_name("A=B").len(), 1);
        assert_eq!(path_segment("a/b%", false), ["may not contain '/'", "may not contain '%'"]);
        assert!(percent("25%").is_empty());
        assert_eq!(percent("25").len(), 1);
        assert!(ip("10.0.0.1").is_empty() && ip("fd00::1").is_empty());
        assert_eq!(ip("010.0.0.1"), ["must not have leading 0s"]);
        assert_eq!(ip("::ffff:1.2.3.4"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(ip("1.2.3"), ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]);
        assert!(cidr("10.0.0.0/8").is_empty() && cidr("fd00::/64").is_empty());
        assert_eq!(cidr("10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        assert_eq!(cidr("10.00.0.0/8"), ["must not have leading 0s in IP or prefix length"]);
        assert_eq!(cidr("10.0.0.0/33"), ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]);
    }
}
