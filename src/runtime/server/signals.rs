//! Signals by name.

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// The first and the last real-time signal as programs count them; the C library keeps two for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `RTMAX-2` or, as the CRI writes it, `SIGRTMINPLUS3`.
pub fn number(name: &str) -> Option<i32> {
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = if let Ok(number) = name.parse::<i32>() {
        number
    } else if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN + offset(rest, "+", "PLUS")?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        RTMAX - offset(rest, "-", "MINUS")?
    } else {
        let name = match name {
            "IOT" => "ABRT",
            "CLD" => "CHLD",
            "POLL" => "IO",
            other => other,
        };
        NAMES.iter().position(|known| *known == name)? as i32 + 1
    };
    (1..=RTMAX).contains(&number).then_some(number)
}

fn offset(rest: &str, sign: &str, word: &str) -> Option<i32> {
    if rest.is_empty() {
        return Some(0);
    }
    let digits = rest.strip_prefix(sign).or_else(|| rest.strip_prefix(word))?;
    digits.parse().ok().filter(|offset| (0..=RTMAX - RTMIN).contains(offset))
}

/// The CRI's name for a number.
pub fn cri(number: i32) -> cri::v1::Signal {
    let name = match number {
        34 => "SIGNAL_SIGRTMIN".to_owned(),
        64 => "SIGNAL_SIGRTMAX".to_owned(),
        35..=49 => format!("SIGNAL_SIGRTMINPLUS{}", number - RTMIN),
        50..=63 => format!("SIGNAL_SIGRTMAXMINUS{}", RTMAX - number),
        _ => {
            let known = usize::try_from(number - 1).ok().and_then(|place| NAMES.get(place));
            format!("SIGNAL_SIG{}", known.copied().unwrap_or_default())
        }
    };
    cri::v1::Signal::from_str_name(&name).unwrap_or(cri::v1::Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_kinds() {
        for (name, expected) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-2", Some(62)),
            ("SIGRTMINPLUS15", Some(49)),
            ("SIGNONE", None),
            ("0", None),
            ("99", None),
            ("SIGRTMIN+99", None),
        ] {
            assert_eq!(number(name), expected, "{name}");
        }
    }

    #[test]
    fn every_number_has_a_cri_name_that_leads_back() {
        for wanted in (1..=31).chain(34..=64) {
            let name = cri(wanted);
            assert_eq!(number(name.as_str_name().trim_start_matches("SIGNAL_")), Some(wanted), "{name:?}");
        }
    }
}
