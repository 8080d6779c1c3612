//! Tokens of an expression.

use crate::source::{Issues, Offset};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    End,
    /// An operator, bracket, comma, colon, or one of the words `in`, `true`, `false`, `null`.
    Fixed(&'static str),
    Int,
    Uint,
    Float,
    String,
    Bytes,
    Ident,
    /// A field name in backquotes.
    Quoted,
}

/// A token and the bytes of the text that it is.
#[derive(Clone, Copy, Debug)]
pub struct Lexeme<'t> {
    pub token: Token,
    pub text: &'t str,
    pub at: Offset,
}

const PUNCTUATION: [&str; 27] = [
    "==", "!=", "<=", ">=", "&&", "||", "in", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":",
    "+", "*", "/", "%", "&", "|",
];

/// Cuts the text into tokens; what is none is reported and skipped. The last token is [`Token::End`].
pub fn tokens<'t>(text: &'t str, issues: &mut Issues<'_>) -> Vec<Lexeme<'t>> {
    let mut lexer = Lexer { text, byte: 0, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_blank();
        let (start, at) = (lexer.byte, lexer.at);
        if start >= text.len() {
            found.push(Lexeme { token: Token::End, text: "<EOF>", at });
            return found;
        }
        match lexer.scan() {
            Some((token, bytes)) => {
                lexer.advance(bytes);
                found.push(Lexeme { token, text: text.get(start..start + bytes).unwrap_or_default(), at });
            }
            None => {
                let bytes = lexer.unrecognised();
                let shown = escape(text.get(start..start + bytes).unwrap_or_default());
                issues.report(at, format!("Syntax error: token recognition error at: '{shown}'"));
                lexer.advance(bytes);
            }
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

struct Lexer<'t> {
    text: &'t str,
    byte: usize,
    at: Offset,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.byte..).unwrap_or_default()
    }

    fn advance(&mut self, bytes: usize) {
        let passed = self.rest().get(..bytes).map_or(0, |passed| passed.chars().count());
        self.at += passed as Offset;
        self.byte += bytes;
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']).len();
            let comment = match rest.get(blank..) {
                Some(tail) if tail.starts_with("//") => tail.find('\n').unwrap_or(tail.len()),
                _ => 0,
            };
            if blank + comment == 0 {
                return;
            }
            self.advance(blank + comment);
        }
    }

    /// The token at hand and its length in bytes.
    fn scan(&self) -> Option<(Token, usize)> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let first = *bytes.first()?;
        if let Some(found) = quoted_text(bytes) {
            return Some(found);
        }
        if first.is_ascii_alphabetic() || first == b'_' {
            let length = bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
            let token = match rest.get(..length) {
                Some("in") => Token::Fixed("in"),
                Some("true") => Token::Fixed("true"),
                Some("false") => Token::Fixed("false"),
                Some("null") => Token::Fixed("null"),
                _ => Token::Ident,
            };
            return Some((token, length));
        }
        if first.is_ascii_digit() || (first == b'.' && bytes.get(1).is_some_and(u8::is_ascii_digit)) {
            return Some(number(bytes));
        }
        if first == b'`' {
            let inner = bytes[1..]
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/' | b' '))
                .count();
            return (inner > 0 && bytes.get(inner + 1) == Some(&b'`')).then_some((Token::Quoted, inner + 2));
        }
        let found = PUNCTUATION.iter().find(|fixed| rest.starts_with(**fixed))?;
        (*found != "&" && *found != "|").then_some((Token::Fixed(found), found.len()))
    }

    /// Bytes that belong to no token: up to and with the one at which no token was possible any more.
    fn unrecognised(&self) -> usize {
        let rest = self.rest();
        let mut characters = rest.char_indices();
        let begun = match characters.next() {
            Some((_, '=' | '&' | '|')) => true,
            Some((_, '"' | '\'')) => {
                // A string without its end: upstream gives up at the end of the line.
                return rest.find(['\n', '\r']).map_or(rest.len(), |line_end| line_end + 1);
            }
            _ => false,
        };
        let last = if begun { characters.next() } else { rest.char_indices().next() };
        last.map_or(rest.len(), |(index, character)| index + character.len_utf8())
    }
}

fn number(bytes: &[u8]) -> (Token, usize) {
    let digits = |from: usize| bytes.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count();
    let unsigned = |length: usize| match bytes.get(length) {
        Some(b'u' | b'U') => (Token::Uint, length + 1),
        _ => (Token::Int, length),
    };
    if bytes.starts_with(b"0x") {
        let hex = bytes.get(2..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if hex > 0 {
            return unsigned(2 + hex);
        }
    }
    let mut length = digits(0);
    let mut float = false;
    if bytes.get(length) == Some(&b'.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
        float = true;
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
            float = true;
        }
    }
    if float { (Token::Float, length) } else { unsigned(length) }
}

/// A string or bytes literal with its prefix, quotes and end.
fn quoted_text(bytes: &[u8]) -> Option<(Token, usize)> {
    let mut start = 0;
    let (mut raw, mut is_bytes) = (false, false);
    loop {
        match bytes.get(start)? {
            b'r' | b'R' if !raw => raw = true,
            b'b' | b'B' if !is_bytes && !raw => is_bytes = true,
            b'"' | b'\'' => break,
            _ => return None,
        }
        start += 1;
    }
    let quote = *bytes.get(start)?;
    let token = if is_bytes { Token::Bytes } else { Token::String };
    let triple = [quote; 3];
    if bytes.get(start..)?.starts_with(&triple) {
        let mut index = start + 3;
        while index < bytes.len() {
            if bytes.get(index..)?.starts_with(&triple) {
                return Some((token, index + 3));
            }
            index += if !raw && bytes[index] == b'\\' { 2 } else { 1 };
        }
        // Not closed: it may still be an empty string followed by something else.
        return Some((token, start + 2));
    }
    let mut index = start + 1;
    while let Some(byte) = bytes.get(index) {
        match byte {
            b'\n' | b'\r' => return None,
            b'\\' if !raw => index += 2,
            found if *found == quote => return Some((token, index + 1)),
            _ => index += 1,
        }
    }
    None
}
