//! Users by a file of tokens (`--token-auth-file`): lines `token,user,uid[,"group1,group2"]`.

use std::path::Path;

use super::known::Known;
use crate::identity::Identity;

#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("the file of tokens {path} cannot be read")]
    Read { path: String, source: std::io::Error },
    #[error("the file of tokens {path}, line {line}: {why}")]
    Line { path: String, line: usize, why: &'static str },
}

pub fn read(path: &Path) -> Result<Vec<Known>, TokenFileError> {
    let shown = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| TokenFileError::Read { path: shown(), source })?;
    parse(&text).map_err(|(line, why)| TokenFileError::Line { path: shown(), line, why })
}

fn parse(text: &str) -> Result<Vec<Known>, (usize, &'static str)> {
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let refused = |why| (at + 1, why);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let columns = columns(line).ok_or_else(|| refused("a quote is not closed"))?;
        let [token, name, uid, rest @ ..] = columns.as_slice() else {
            return Err(refused("it needs token, user and uid"));
        };
        if token.is_empty() {
            tracing::warn!(line = at + 1, "a line of the file of tokens has no token and is left out");
            continue;
        }
        let groups = rest.first().map_or("", String::as_str);
        all.push(Known::new(
            token,
            Identity {
                name: name.clone(),
                uid: uid.clone(),
                groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
                ..Identity::default()
            },
        ));
    }
    Ok(all)
}

/// The columns of a line of CSV; `""` within quotes is a quote.
fn columns(line: &str) -> Option<Vec<String>> {
    let mut columns = Vec::new();
    let mut rest = line.trim_end_matches('\r');
    loop {
        rest = rest.trim_start_matches(' ');
        let mut column = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (text, tail) = quoted.split_once('"')?;
                column.push_str(text);
                match tail.strip_prefix('"') {
                    Some(tail) => {
                        column.push('"');
                        quoted = tail;
                    }
                    None => {
                        rest = tail;
                        break;
                    }
                }
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (text, tail) = rest.split_at(end);
            column.push_str(text);
            rest = tail;
        }
        columns.push(column);
        match rest.split_once(',') {
            Some((_, tail)) => rest = tail,
            None => return Some(columns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_token_a_user_a_uid_and_groups() {
        let all = parse("abc,alice,1,\"dev,\"\"ops\"\"\"\n\n# nobody\ndef,bob,2\n").unwrap();
        let found = super::super::known::find(&all, "abc").unwrap();
        assert_eq!((found.name.as_str(), found.uid.as_str()), ("alice", "1"));
        assert_eq!(found.groups, ["dev", "\"ops\"", "system:authenticated"]);
        assert_eq!(super::super::known::find(&all, "def").unwrap().groups, ["system:authenticated"]);
        assert!(super::super::known::find(&all, "ghi").is_none());
        assert_eq!(parse("abc,alice\n").err(), Some((1, "it needs token, user and uid")));
        assert_eq!(parse("\nabc,\"alice,1\n").err(), Some((2, "a quote is not closed")));
    }
}
