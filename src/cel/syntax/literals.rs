//! What literals say.

/// The characters of a string literal, its prefix and quotes still around it.
pub fn string(literal: &str) -> Result<String, &'static str> {
    let (raw, inner) = strip(literal)?;
    if raw || !inner.contains('\\') {
        return Ok(inner.to_owned());
    }
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(found) = rest.chars().next() {
        if found != '\\' {
            text.push(found);
            rest = &rest[found.len_utf8()..];
            continue;
        }
        let (code, length) = escape(rest)?;
        text.push(char::from_u32(code).ok_or("invalid unicode code point")?);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(text)
}

/// The bytes of a bytes literal, prefix and quotes still around it.
pub fn bytes(literal: &str) -> Result<Vec<u8>, &'static str> {
    let literal = literal.strip_prefix(['b', 'B']).unwrap_or(literal);
    let (raw, inner) = strip(literal)?;
    if raw || !inner.contains('\\') {
        return Ok(inner.as_bytes().to_vec());
    }
    let mut found = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(character) = rest.chars().next() {
        if character != '\\' {
            found.extend_from_slice(&rest.as_bytes()[..character.len_utf8()]);
            rest = &rest[character.len_utf8()..];
            continue;
        }
        if matches!(rest.as_bytes().get(1), Some(b'u' | b'U')) {
            return Err(FAILED);
        }
        let (code, length) = escape(rest)?;
        found.push(u8::try_from(code).map_err(|_| FAILED)?);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(found)
}

/// A whole number, decimal or with `0x`, perhaps with a sign.
pub fn int(text: &str) -> Option<i64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let value = match digits.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    let value = value.ok()?;
    i64::try_from(if negative { -value } else { value }).ok()
}

pub fn uint(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['u', 'U']);
    match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

const FAILED: &str = "unable to unescape string";
const OCTAL: &str = "unable to unescape octal sequence in string";

fn strip(literal: &str) -> Result<(bool, &str), &'static str> {
    let (raw, quoted) = match literal.strip_prefix(['r', 'R']) {
        Some(rest) => (true, rest),
        None => (false, literal),
    };
    for triple in ["\"\"\"", "'''"] {
        if quoted.len() >= 6 && quoted.starts_with(triple) {
            return quoted.get(3..quoted.len() - 3).map(|inner| (raw, inner)).ok_or(FAILED);
        }
    }
    quoted.get(1..quoted.len().max(2) - 1).map(|inner| (raw, inner)).ok_or(FAILED)
}

/// The code behind the escape that the text starts with, and how many bytes it takes.
fn escape(text: &str) -> Result<(u32, usize), &'static str> {
    let bytes = text.as_bytes();
    let kind = *bytes.get(1).ok_or("unable to unescape string, found '\\' as last character")?;
    let simple = match kind {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => 10,
        b'r' => 13,
        b't' => 9,
        b'v' => 11,
        b'\\' | b'\'' | b'"' | b'`' | b'?' => u32::from(kind),
        b'x' | b'X' => return hex(text, 2),
        b'u' => return hex(text, 4),
        b'U' => return hex(text, 8),
        b'0'..=b'3' => {
            let digits = text.get(1..4).ok_or(OCTAL)?;
            return u32::from_str_radix(digits, 8).map(|code| (code, 4)).map_err(|_| OCTAL);
        }
        _ => return Err(FAILED),
    };
    Ok((simple, 2))
}

fn hex(text: &str, digits: usize) -> Result<(u32, usize), &'static str> {
    let found = text.get(2..2 + digits).ok_or(FAILED)?;
    if !found.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(FAILED);
    }
    u32::from_str_radix(found, 16).map(|code| (code, 2 + digits)).map_err(|_| FAILED)
}
