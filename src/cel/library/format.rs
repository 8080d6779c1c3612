//! Named formats: `format.dns1123Label().validate(text)`.

use super::{Function, bad, base64, function, library, text, time, url::Url};
use crate::cost::Cost;
use crate::value::{Library, Value};

const NAMED_TYPE: &str = "() -> kubernetes.NamedFormat";

pub const FUNCTIONS: &[Function] = &[
    function("validate", "kubernetes.NamedFormat.(string) -> optional_type(list(string))", Cost::Validate, |args| {
        let Library::Format(format) = library(args, 0)? else { return bad() };
        let complaints = format.check(text(args, 1)?);
        if complaints.is_empty() {
            return Ok(Value::Optional(None));
        }
        Ok(Value::some(Value::list(complaints.into_iter().map(Value::string).collect())))
    }),
    function("format.named", "(string) -> optional_type(kubernetes.NamedFormat)", Cost::One, |args| {
        let wanted = text(args, 0)?;
        let found = ALL.iter().find(|format| format.function.strip_prefix("format.") == Some(wanted));
        Ok(found.map_or(Value::Optional(None), |format| Value::some(value(*format))))
    }),
];

pub const NAMED: &[Function] = &[
    function("format.dns1123Label", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[0]))),
    function("format.dns1123Subdomain", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[1]))),
    function("format.dns1035Label", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[2]))),
    function("format.qualifiedName", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[3]))),
    function("format.dns1123LabelPrefix", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[4]))),
    function("format.dns1123SubdomainPrefix", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[5]))),
    function("format.dns1035LabelPrefix", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[6]))),
    function("format.labelValue", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[7]))),
    function("format.uri", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[8]))),
    function("format.uuid", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[9]))),
    function("format.byte", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[10]))),
    function("format.date", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[11]))),
    function("format.datetime", NAMED_TYPE, Cost::One, |_| Ok(value(ALL[12]))),
];

/// The longest of [`Format::regex_size`] among names (upstream: `MaxNameFormatRegexSize`).
pub const REGEX_SIZE_MAX: u64 = 128;

/// A format; its size is that of the regular expression upstream charges for.
#[derive(Clone, Copy)]
pub struct Format {
    function: &'static str,
    name: &'static str,
    pub regex_size: u64,
    check: fn(&str) -> Vec<String>,
}

const fn format(function: &'static str, name: &'static str, regex_size: u64, check: fn(&str) -> Vec<String>) -> Format {
    Format { function, name, regex_size, check }
}

static ALL: [Format; 13] = [
    format("format.dns1123Label", "DNS1123Label", 30, label),
    format("format.dns1123Subdomain", "DNS1123Subdomain", 60, subdomain),
    format("format.dns1035Label", "DNS1035Label", 30, label_1035),
    format("format.qualifiedName", "QualifiedName", 60, qualified_name),
    format("format.dns1123LabelPrefix", "DNS1123LabelPrefix", 30, |text| label(&unprefixed(text))),
    format("format.dns1123SubdomainPrefix", "DNS1123SubdomainPrefix", 60, |text| subdomain(&unprefixed(text))),
    format("format.dns1035LabelPrefix", "DNS1035LabelPrefix", 30, |text| label_1035(&unprefixed(text))),
    format("format.labelValue", "LabelValue", 40, label_value),
    format("format.uri", "URI", 1103, |text| Url::parse(text).err().into_iter().collect()),
    format("format.uuid", "uuid", 63, |text| one(is_uuid(text), "does not match the UUID format")),
    format("format.byte", "byte", 84, |text| one(!text.is_empty() && base64::decode(text).is_some(), "invalid base64")),
    format("format.date", "date", 114, |text| {
        one(text.len() == 10 && time::timestamp_or_date(text).is_ok(), "invalid date")
    }),
    format("format.datetime", "datetime", 114, |text| one(time::timestamp(text).is_ok(), "invalid datetime")),
];

impl Format {
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What is wrong with the text.
    fn check(&self, text: &str) -> Vec<String> {
        (self.check)(text)
    }
}

fn value<'a>(format: Format) -> Value<'a> {
    Value::Library(Library::Format(format))
}

fn one(holds: bool, complaint: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![complaint.to_owned()] }
}

/// A name's prefix may end with a dash, which the rest of the name would follow.
fn unprefixed(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(start) => format!("{start}a"),
        None => text.to_owned(),
    }
}

fn too_long(text: &str, max: usize) -> Vec<String> {
    one(text.len() <= max, &format!("must be no more than {max} bytes"))
}

fn is_label(text: &str, first: fn(u8) -> bool) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.bytes().all(inner) && text.bytes().next().is_some_and(first) && !text.ends_with('-')
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn label(text: &str) -> Vec<String> {
    let mut found = too_long(text, 63);
    found.extend(one(
        is_label(text, alphanumeric),
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
         with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    ));
    found
}

fn label_1035(text: &str) -> Vec<String> {
    let mut found = too_long(text, 63);
    found.extend(one(
        is_label(text, |byte| byte.is_ascii_lowercase()),
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
         character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation \
         is '[a-z]([-a-z0-9]*[a-z0-9])?')",
    ));
    found
}

fn subdomain(text: &str) -> Vec<String> {
    let mut found = too_long(text, 253);
    found.extend(one(
        text.split('.').all(|part| is_label(part, alphanumeric)),
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
         and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    ));
    found
}

fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().last())
}

fn label_value(text: &str) -> Vec<String> {
    let mut found = too_long(text, 63);
    found.extend(one(
        text.is_empty() || is_name(text),
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
         and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
         validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
    ));
    found
}

fn qualified_name(text: &str) -> Vec<String> {
    const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                        validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let mut found = Vec::new();
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    if name.contains('/') {
        return vec![format!(
            "a qualified name {NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        )];
    }
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            found.push("prefix part must be non-empty".to_owned());
        } else {
            found.extend(subdomain(prefix).into_iter().map(|why| format!("prefix part {why}")));
        }
    }
    if name.is_empty() {
        found.push("name part must be non-empty".to_owned());
    } else {
        found.extend(too_long(name, 63).into_iter().map(|why| format!("name part {why}")));
    }
    found.extend(one(is_name(name), &format!("name part {NAME}")));
    found
}

/// With or without dashes between its parts.
fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (index, digits) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some(part) = rest.get(..digits) else { return false };
        if !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        rest = &rest[digits..];
    }
    rest.is_empty()
}
