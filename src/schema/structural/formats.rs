//! Formats of strings that are checked (`strfmt`). Others are ignored.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether strings of this format are checked.
pub fn is_known(format: &str) -> bool {
    const KNOWN: [&str; 26] = [
        "bsonobjectid",
        "byte",
        "cidr",
        "creditcard",
        "date",
        "datetime",
        "duration",
        "email",
        "hexcolor",
        "hostname",
        "ipv4",
        "ipv6",
        "isbn",
        "isbn10",
        "isbn13",
        "k8slongname",
        "k8sshortname",
        "mac",
        "password",
        "rgbcolor",
        "ssn",
        "uri",
        "uuid",
        "uuid3",
        "uuid4",
        "uuid5",
    ];
    KNOWN.contains(&normal(format).as_str())
}

fn normal(format: &str) -> String {
    format.replace('-', "")
}

/// Whether a string is of a known format.
pub(super) fn fits(format: &str, text: &str) -> bool {
    match normal(format).as_str() {
        "bsonobjectid" => text.len() == 24 && is_hex(text),
        "byte" => is_base64(text),
        "cidr" => is_cidr(text),
        "creditcard" => is_credit_card(text),
        "date" => is_date(text),
        "datetime" => is_date_time(text),
        "duration" => is_duration(text),
        "email" => is_email(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && is_hex(digits)
        }
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok() || (text.contains('.') && text.parse::<Ipv6Addr>().is_ok()),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8slongname" => text.len() <= 253 && text.split('.').all(is_label),
        "k8sshortname" => text.len() <= 63 && is_label(text),
        "mac" => is_mac(text),
        "rgbcolor" => is_rgb(text),
        "ssn" => is_ssn(text),
        "uri" => is_request_uri(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some(b'3')),
        "uuid4" => is_uuid(text, Some(b'4')),
        "uuid5" => is_uuid(text, Some(b'5')),
        _ => true,
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_base64(text: &str) -> bool {
    let data = text.trim_end_matches('=');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    text.len().is_multiple_of(4) && text.len() - data.len() <= 2 && data.bytes().all(plain) && !text.is_empty()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    if !is_digits(bits) || (bits.len() > 1 && bits.starts_with('0')) {
        return false;
    }
    let bits: u32 = bits.parse().unwrap_or(u32::MAX);
    (address.parse::<Ipv4Addr>().is_ok() && bits <= 32) || (address.parse::<Ipv6Addr>().is_ok() && bits <= 128)
}

fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    if !(12..=19).contains(&digits.len()) {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => *digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return false };
    if year.len() != 4 || month.len() != 2 || day.len() != 2 || ![*year, *month, *day].iter().all(|p| is_digits(p)) {
        return false;
    }
    let (year, month, day): (u32, u32, u32) =
        (year.parse().unwrap_or(0), month.parse().unwrap_or(0), day.parse().unwrap_or(0));
    let leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let Some((date, time)) = lower.split_once('t') else { return false };
    let clock = |text: &str| {
        let parts: Vec<&str> = text.split(':').collect();
        let in_range =
            |part: &str, max: u32| part.len() == 2 && is_digits(part) && part.parse().is_ok_and(|n: u32| n <= max);
        matches!(parts.as_slice(), [h, m, s] if in_range(h, 23) && in_range(m, 59) && in_range(s, 59))
    };
    let (time, zone) = match time.find(['z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => return false,
    };
    let zone_is_good = zone == "z" || {
        let rest = zone.get(1..).unwrap_or_default();
        let two = |text: &str| text.len() == 2 && is_digits(text);
        rest.split_once(':').is_some_and(|(hours, minutes)| two(hours) && two(minutes))
    };
    let (time, fraction) = time.split_once('.').map_or((time, None), |(time, fraction)| (time, Some(fraction)));
    is_date(date) && zone_is_good && clock(time) && fraction.is_none_or(is_digits)
}

/// `1h2m3.5s` as in Go, or `3 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 7] = ["ns", "us", "µs", "μs", "ms", "s", "h"];
    const WORDS: [&str; 25] = [
        "ns",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "us",
        "µs",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "ms",
        "milli",
        "millis",
        "millisecond",
        "milliseconds",
        "sec",
        "second",
        "seconds",
        "min",
        "minute",
        "minutes",
        "hr",
        "hour",
        "hours",
    ];
    const LONG: [&str; 11] = ["s", "secs", "m", "mins", "h", "hours", "d", "day", "days", "week", "weeks"];
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let whole = rest;
    let mut parts = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, tail) = rest.split_at(number);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let numeric = digits.chars().any(|c| c.is_ascii_digit()) && digits.matches('.').count() <= 1;
        if !numeric || !(UNITS.contains(&unit) || unit == "m") {
            parts = 0;
            break;
        }
        parts += 1;
        rest = tail;
    }
    if parts > 0 {
        return true;
    }
    let number = whole.find(|c: char| !c.is_ascii_digit()).unwrap_or(whole.len());
    let (digits, unit) = whole.split_at(number);
    let unit = unit.trim();
    is_digits(digits) && (WORDS.contains(&unit) || LONG.contains(&unit))
}

fn is_email(text: &str) -> bool {
    let address = match (text.find('<'), text.ends_with('>')) {
        (Some(at), true) => text.get(at + 1..text.len() - 1).unwrap_or_default(),
        (None, false) => text,
        _ => return false,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    let atoms = |text: &str| !text.is_empty() && text.split('.').all(|part| !part.is_empty() && part.chars().all(atom));
    let quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    (quoted || atoms(local)) && (atoms(domain) || (domain.starts_with('[') && domain.ends_with(']')))
}

fn is_hostname(text: &str) -> bool {
    let symbol = |c: char| c.is_alphanumeric() || (!c.is_ascii() && !c.is_whitespace());
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| symbol(c) || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels: Vec<&str> = text.split('.').collect();
    let top = |label: &&str| label.chars().count() >= 2 && label.chars().all(char::is_alphabetic);
    text.len() <= 255 && labels.iter().all(|one| label(one)) && (labels.len() == 1 || labels.last().is_some_and(top))
}

fn digits_of_book(text: &str) -> String {
    text.chars().filter(|c| *c != '-' && *c != ' ').collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = digits_of_book(text);
    if text.len() != 10 {
        return false;
    }
    let mut sum = 0;
    for (at, c) in text.chars().enumerate() {
        let value = match c {
            'X' if at == 9 => 10,
            c => match c.to_digit(10) {
                Some(digit) => digit,
                None => return false,
            },
        };
        sum += value * (10 - u32::try_from(at).unwrap_or(0));
    }
    sum.is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let text = digits_of_book(text);
    if text.len() != 13 || !is_digits(&text) {
        return false;
    }
    let weighted = |(at, c): (usize, char)| c.to_digit(10).unwrap_or(0) * if at % 2 == 0 { 1 } else { 3 };
    text.chars().enumerate().map(weighted).sum::<u32>().is_multiple_of(10)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len()) && parts.iter().all(|part| part.len() == width && is_hex(part))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

fn is_rgb(text: &str) -> bool {
    let Some(inner) = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')) else { return false };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|part| is_digits(part) && part.parse::<u8>().is_ok())
}

fn is_ssn(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-' && *c != ' ').collect();
    let separators = text.len() - plain.len();
    plain.len() == 9 && is_digits(&plain) && separators <= 2
}

/// What can be asked of a server: a path, or a URL with a scheme.
fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let mut chars = scheme.chars();
    let starts_well = chars.next().is_some_and(|c| c.is_ascii_alphabetic());
    starts_well && chars.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) && !rest.is_empty()
}

fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let plain: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let dashes_stand_well =
        text.bytes().enumerate().filter(|(_, byte)| *byte == b'-').all(|(at, _)| (8..=23).contains(&at));
    let dashes = text.len() - plain.len();
    if plain.len() != 32 || dashes > 4 || !dashes_stand_well || !plain.iter().all(u8::is_ascii_hexdigit) {
        return false;
    }
    let Some(version) = version else { return true };
    let variant = plain.get(16).map(u8::to_ascii_lowercase);
    plain.get(12) == Some(&version)
        && (version == b'3' || variant.is_some_and(|byte| matches!(byte, b'8' | b'9' | b'a' | b'b')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_is_of_them() {
        for (format, good, bad) in [
            ("date", "2024-02-29", "2023-02-29"),
            ("date-time", "2014-12-15T19:30:20.000Z", "2014-12-15 19:30"),
            ("duration", "1h2m0.5s", "soon"),
            ("duration", "22 ns", "ns"),
            ("email", "a.b@example.com", "a.b"),
            ("hostname", "a-b.example.com", "-a.com"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "fe80::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:33:44:55", "00:11:22:33:44"),
            ("uuid", "2f4c1d4e-8d0c-4b6f-9d3e-000000000000", "2f4c1d4e"),
            ("uuid4", "2f4c1d4e-8d0c-4b6f-9d3e-000000000000", "2f4c1d4e-8d0c-3b6f-9d3e-000000000000"),
            ("isbn", "978-0321751041", "978-0321751042"),
            ("isbn10", "0321751043", "0321751044"),
            ("hexcolor", "#FFF", "#FFFF"),
            ("rgbcolor", "rgb(0, 255, 3)", "rgb(0,256,3)"),
            ("byte", "aGk=", "aGk"),
            ("uri", "https://x/y", "x y"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "111-11-1111", "111-11-111"),
            ("k8s-short-name", "a-b", "A"),
            ("k8s-long-name", "a.b-c", "a..b"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
        ] {
            assert!(is_known(format), "{format}");
            assert!(fits(format, good), "{format} {good}");
            assert!(!fits(format, bad), "{format} {bad}");
        }
        assert!(!is_known("made-up") && fits("password", "x"));
    }
}
