//! What only the Go types say: numbers in protobuf, and which fields are pointers.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::{Path, PathBuf};

/// Named slices that protobuf has as messages of their own.
const WRAPPED: [&str; 2] = ["ExtraValue", "Verbs"];

/// A field as its struct declares it.
#[derive(Clone)]
struct Declared {
    /// Empty for an embedded struct whose fields stand among those around it.
    json: String,
    go_type: String,
    number: String,
    kept: Kept,
}

/// What becomes of a field's zero value when it is encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Neither `omitempty` nor `omitzero`: it is written.
    Always,
    /// `omitempty`, which does nothing to structs.
    Structs,
    /// `omitzero`
    Never,
}

/// What the table says of a field of the wire.
pub struct Wire {
    /// `2.1*`: the number, and what it is on the wire.
    pub number: String,
    pub pointer: bool,
    pub kept: Kept,
}

/// The structs of Kubernetes' packages, read when they are asked for.
pub struct Packages {
    staging: PathBuf,
    read: HashMap<String, Package>,
}

#[derive(Default)]
struct Package {
    structs: HashMap<String, Vec<Declared>>,
    /// `type A = other.B` and `type A other.B`, as package and name.
    aliases: HashMap<String, (String, String)>,
}

impl Packages {
    /// `staging` is Kubernetes' directory `staging/src`.
    pub fn new(staging: &Path) -> Packages {
        Packages { staging: staging.to_owned(), read: HashMap::new() }
    }

    /// JSON name of each field of a definition that protobuf has, and what the table says of it.
    pub fn numbers(&mut self, definition: &str) -> Result<BTreeMap<String, Wire>, Box<dyn Error>> {
        let path = definition.strip_prefix("io.k8s.").ok_or("a foreign definition")?;
        let mut parts: Vec<&str> = path.split('.').collect();
        let name = parts.pop().ok_or("no name")?;
        let mut found = BTreeMap::new();
        self.collect(&format!("k8s.io/{}", parts.join("/")), name, "", &mut found)?;
        Ok(found)
    }

    fn collect(
        &mut self,
        package: &str,
        name: &str,
        prefix: &str,
        found: &mut BTreeMap<String, Wire>,
    ) -> Result<(), Box<dyn Error>> {
        if !self.read.contains_key(package) {
            let read = read(&self.staging.join(package))?;
            self.read.insert(package.to_owned(), read);
        }
        let known = &self.read[package];
        if let Some((package, name)) = known.aliases.get(name).cloned() {
            return self.collect(&package, &name, prefix, found);
        }
        for field in known.structs.get(name).cloned().unwrap_or_default() {
            let number = format!("{prefix}{}", field.number);
            if field.json.is_empty() {
                self.collect(package, &field.go_type, &format!("{number}."), found)?;
                continue;
            }
            let wrapped = WRAPPED.iter().any(|name| field.go_type.trim_start_matches("map[string]") == *name);
            let pointer = field.go_type.starts_with('*');
            let mark = match pointer {
                true => "*",
                false if wrapped => "~",
                false => "",
            };
            found.insert(field.json, Wire { number: format!("{number}{mark}"), pointer, kept: field.kept });
        }
        Ok(())
    }
}

fn read(directory: &Path) -> Result<Package, Box<dyn Error>> {
    let mut package = Package::default();
    for entry in std::fs::read_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "go") && !path.to_string_lossy().contains("generated") {
            parse(&std::fs::read_to_string(path)?, &mut package);
        }
    }
    Ok(package)
}

fn parse(text: &str, package: &mut Package) {
    let mut imports = HashMap::new();
    let mut current: Option<String> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), &current) {
            ([alias, path], None) if path.starts_with('"') => {
                imports.insert((*alias).to_owned(), path.trim_matches('"').to_owned());
            }
            (["type", name, "struct", "{"], _) => {
                current = Some((*name).to_owned());
                package.structs.insert((*name).to_owned(), Vec::new());
            }
            (["type", name, "=", target] | ["type", name, target], _) => {
                if let Some((alias, target)) = target.split_once('.')
                    && let Some(path) = imports.get(alias)
                {
                    package.aliases.insert((*name).to_owned(), (path.clone(), target.to_owned()));
                }
            }
            (["}"], _) => current = None,
            (words, Some(name)) => {
                let fields = package.structs.entry(name.clone()).or_default();
                fields.extend(field(line, words));
            }
            _ => {}
        }
    }
}

fn field(line: &str, words: &[&str]) -> Option<Declared> {
    let tag = |key: &str| {
        let from = line.find(&format!("{key}:\""))? + key.len() + 2;
        line.get(from..)?.split('"').next()
    };
    let number = tag("protobuf")?.split(',').nth(1)?.to_owned();
    let mut options = tag("json")?.split(',');
    let json = options.next()?.to_owned();
    let kept = options.fold(Kept::Always, |kept, option| match option {
        "omitzero" => Kept::Never,
        "omitempty" if kept == Kept::Always => Kept::Structs,
        _ => kept,
    });
    let go_type = if json.is_empty() { words.first()? } else { words.get(1)? };
    Some(Declared { json, go_type: (*go_type).to_owned(), number, kept })
}
