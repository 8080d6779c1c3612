//! The configuration file: YAML whose keys are the long flags, turned into arguments that stand before those of the
//! command line. Files in `<file>.d/*.yaml` are read after it, in the order of their names; a later value wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use serde_json::Value;

use crate::options::{Command, DEFAULT_CONFIG_FILE, DEFAULT_DATA_DIR};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not usable YAML: {why}")]
    Syntax { path: PathBuf, why: String },
    #[error("{path}: unknown key {key:?}{hint}")]
    UnknownKey { path: PathBuf, key: String, hint: String },
    #[error("{path}: the value of {key:?} should be text, a number, true or false, or a list of these")]
    BadValue { path: PathBuf, key: String },
}

/// The faces that a configuration file is written for.
const CONFIGURED: [&str; 2] = ["server", "agent"];

/// The arguments with those of the configuration file put in, right behind the subcommand. `server` and `agent` take
/// all of it, others what concerns them: where things are.
pub fn merged(args: Vec<OsString>) -> Result<Vec<OsString>, ConfigError> {
    let command = Command::command();
    let face = args.get(1).and_then(|face| face.to_str());
    let Some(face) = face.filter(|face| command.find_subcommand(face).is_some()) else {
        return Ok(args);
    };
    let (file, is_default) = match named_file(&args) {
        Some(file) => (file, false),
        None => (PathBuf::from(DEFAULT_CONFIG_FILE), true),
    };
    let of_face = known_keys(&command, &[face]);
    let values = if CONFIGURED.contains(&face) {
        read_all(&file, is_default, &of_face)?
    } else {
        let mut values = read_all(&file, is_default, &known_keys(&command, &CONFIGURED))?;
        values.retain(|key, _| of_face.contains_key(key));
        values
    };
    let mut merged: Vec<OsString> = args.iter().take(2).cloned().collect();
    for (key, values) in values {
        // A variable in the environment beats the file; clap reads it when the argument is absent.
        let variable = format!("CLUSTER_{}", key.to_uppercase().replace('-', "_"));
        if std::env::var_os(variable).is_none() {
            merged.extend(values.into_iter().map(|value| value.as_argument(&key)).map(OsString::from));
        }
    }
    merged.extend(args.into_iter().skip(2));
    Ok(merged)
}

enum Setting {
    Switch,
    Text(String),
}

impl Setting {
    fn as_argument(&self, key: &str) -> String {
        match self {
            Setting::Switch => format!("--{key}"),
            Setting::Text(text) => format!("--{key}={text}"),
        }
    }
}

/// The data directory of the service that `install.sh` sets up, which is started without flags of its own.
pub fn data_dir_of_service() -> Result<PathBuf, ConfigError> {
    let known = known_keys(&Command::command(), &CONFIGURED);
    let mut values = read_all(Path::new(DEFAULT_CONFIG_FILE), true, &known)?;
    Ok(match values.remove("data-dir").and_then(|mut values| values.pop()) {
        Some(Setting::Text(path)) => PathBuf::from(path),
        _ => PathBuf::from(DEFAULT_DATA_DIR),
    })
}

/// The long flags of faces, and whether they take a value.
fn known_keys(command: &clap::Command, faces: &[&str]) -> BTreeMap<String, bool> {
    faces
        .iter()
        .filter_map(|face| command.find_subcommand(face))
        .flat_map(|face| face.get_arguments())
        .filter_map(|argument| Some((argument.get_long()?.to_owned(), argument.get_action().takes_values())))
        .filter(|(key, _)| key != "config")
        .collect()
}

fn named_file(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().skip(2);
    let mut named = None;
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str() else { continue };
        if text == "--config" || text == "-c" {
            named = args.next().map(PathBuf::from);
        } else if let Some(file) = text.strip_prefix("--config=").or_else(|| text.strip_prefix("-c=")) {
            named = Some(PathBuf::from(file));
        }
    }
    named.or_else(|| std::env::var_os("CLUSTER_CONFIG").map(PathBuf::from))
}

fn read_all(
    file: &Path,
    may_be_absent: bool,
    known: &BTreeMap<String, bool>,
) -> Result<BTreeMap<String, Vec<Setting>>, ConfigError> {
    let mut settings = BTreeMap::new();
    match std::fs::read_to_string(file) {
        Ok(text) => parse(file, &text, known, &mut settings)?,
        Err(error) if may_be_absent && error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(ConfigError::Read { path: file.to_owned(), source }),
    }
    let mut directory = file.as_os_str().to_owned();
    directory.push(".d");
    let directory = PathBuf::from(directory);
    let mut parts: Vec<PathBuf> = match std::fs::read_dir(&directory) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    parts.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    parts.sort();
    for path in parts {
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        parse(&path, &text, known, &mut settings)?;
    }
    Ok(settings)
}

fn parse(
    path: &Path,
    text: &str,
    known: &BTreeMap<String, bool>,
    settings: &mut BTreeMap<String, Vec<Setting>>,
) -> Result<(), ConfigError> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(());
    }
    let values: BTreeMap<String, Value> = serde_saphyr::from_str(text)
        .map_err(|error| ConfigError::Syntax { path: path.to_owned(), why: error.to_string() })?;
    for (key, value) in values {
        let Some(&takes_value) = known.get(&key) else {
            return Err(ConfigError::UnknownKey { path: path.to_owned(), hint: nearest(&key, known), key });
        };
        let bad = || ConfigError::BadValue { path: path.to_owned(), key: key.clone() };
        let list = match value {
            Value::Array(list) => list,
            single => vec![single],
        };
        let mut found = Vec::new();
        for value in list {
            match (takes_value, value) {
                (false, Value::Bool(true)) => found.push(Setting::Switch),
                (false, Value::Bool(false)) => {}
                (true, Value::String(text)) => found.push(Setting::Text(text)),
                (true, Value::Number(number)) => found.push(Setting::Text(number.to_string())),
                (true, Value::Bool(flag)) => found.push(Setting::Text(flag.to_string())),
                _ => return Err(bad()),
            }
        }
        settings.insert(key, found);
    }
    Ok(())
}

fn nearest(key: &str, known: &BTreeMap<String, bool>) -> String {
    const SIMILAR_ENOUGH: f64 = 0.7;
    known
        .keys()
        .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
        .filter(|(similarity, _)| *similarity > SIMILAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!("; did you mean {candidate:?}?"))
        .unwrap_or_else(|| "; the keys are the long flags that `cluster server --help` lists".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged_with(text: &str, arguments: &[&str]) -> Result<Vec<String>, ConfigError> {
        merged_for("server", text, arguments)
    }

    fn merged_for(face: &str, text: &str, arguments: &[&str]) -> Result<Vec<String>, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, text).unwrap();
        let mut args: Vec<OsString> = vec!["cluster".into(), face.into(), "--config".into(), file.into()];
        args.extend(arguments.iter().map(OsString::from));
        let merged = merged(args)?;
        Ok(merged.into_iter().map(|arg| arg.into_string().unwrap()).collect())
    }

    #[test]
    fn keys_become_flags_before_those_of_the_command_line() {
        let merged =
            merged_with("node-name: shed\ndisable-agent: true\nmax-pods: 5\nnode-label: [a=b, c=d]\n", &["--debug"]);
        let merged = merged.unwrap();
        let flags: Vec<&str> = merged.iter().skip(2).map(String::as_str).filter(|arg| arg.starts_with("--")).collect();
        assert_eq!(
            flags,
            [
                "--disable-agent",
                "--max-pods=5",
                "--node-label=a=b",
                "--node-label=c=d",
                "--node-name=shed",
                "--config",
                "--debug"
            ]
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_right_one() {
        let error = merged_with("node-nmae: shed\n", &[]).unwrap_err().to_string();
        assert!(error.ends_with("unknown key \"node-nmae\"; did you mean \"node-name\"?"), "{error}");
    }

    #[test]
    fn the_others_take_from_it_where_things_are() {
        use clap::Parser;

        use crate::options::Face;

        let text = "data-dir: /srv/c\nnode-name: shed\nserver: https://a:6443\ndisable-agent: true\n";
        for face in ["status", "token", "uninstall"] {
            let merged = merged_for(face, text, &[]).unwrap();
            assert_eq!(merged[2], "--data-dir=/srv/c");
            assert_eq!(merged.len(), 5, "{merged:?}");
            Command::try_parse_from(merged).unwrap();
        }
        let data_dir =
            |arguments: &[&str]| match Command::parse_from(merged_for("image", text, arguments).unwrap()).face {
                Face::Image(options) => options.paths.data_dir,
                other => panic!("{other:?}"),
            };
        assert_eq!(data_dir(&["list"]), Path::new("/srv/c"));
        assert_eq!(data_dir(&["list", "--data-dir", "/other"]), Path::new("/other"));
        assert_eq!(data_dir(&["-d", "/other", "list"]), Path::new("/other"));
        let error = merged_for("status", "data-dri: /srv\n", &[]).unwrap_err().to_string();
        assert!(error.ends_with("did you mean \"data-dir\"?"), "{error}");
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused() {
        assert!(matches!(merged_with("node-name: {a: b}\n", &[]), Err(ConfigError::BadValue { .. })));
        assert!(matches!(merged_with("- a\n", &[]), Err(ConfigError::Syntax { .. })));
    }

    #[test]
    fn an_empty_file_says_nothing_and_a_missing_one_that_was_named_is_an_error() {
        assert_eq!(merged_with("# nothing\n", &[]).unwrap().len(), 4);
        let args = ["cluster", "agent", "-c", "/nonexistent/config.yaml"].map(OsString::from).to_vec();
        assert!(matches!(merged(args), Err(ConfigError::Read { .. })));
    }
}
