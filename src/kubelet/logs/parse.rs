//! One line of CRI's log format: `<time> <stream> <tags> <text>`.

/// A line without its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339 with nanoseconds.
    pub time: &'a str,
    pub stream: Stream,
    /// The text goes on in the next line (tag `P`).
    pub is_partial: bool,
    pub text: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// `None` for what is no such line.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (time, rest) = split(line)?;
    let (stream, rest) = split(rest)?;
    // An empty line may lack the last blank.
    let (tags, text) = split(rest).unwrap_or((rest, &[]));
    let time = std::str::from_utf8(time).ok().filter(|time| time.len() >= "2006-01-02T15:04:05Z".len())?;
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let is_partial = match tags.split(|&byte| byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line { time, stream, is_partial, text })
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == b' ')?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_what_is_none() {
        let line = parse(b"2026-11-21T04:57:19.123456789Z stdout F hello world\n").unwrap();
        assert_eq!((line.stream, line.is_partial, line.text), (Stream::Stdout, false, &b"hello world"[..]));
        let line = parse(b"2026-11-21T04:57:19.123456789+01:00 stderr P:x a").unwrap();
        assert_eq!((line.stream, line.is_partial, line.text), (Stream::Stderr, true, &b"a"[..]));
        assert_eq!(parse(b"2026-11-21T04:57:19Z stdout F").unwrap().text, b"");
        assert_eq!(parse(b"2026-11-21T04:57:19Z stdout F ").unwrap().text, b"");
        for bad in [
            &b""[..],
            b"\n",
            b"x",
            b"2026 stdout F a",
            b"2026-11-21T04:57:19Z other F a",
            b"2026-11-21T04:57:19Z stdout X a",
        ] {
            assert_eq!(parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
